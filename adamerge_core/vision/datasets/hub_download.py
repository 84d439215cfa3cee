"""Fetching from the hub: the bytes of a data set's or model's files, and what can go wrong.

The only place of the library that opens a connection; nothing calls it but a user's command or
program. A fetch that breaks, in whatever way, goes on from the byte that it had come to; a file
appears in the cache when its digest is the hub's. Nothing here imports torch.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from adamerge_core.errors import InputError, NetworkError
from adamerge_core.vision.datasets.hub_files import (
    HubCache,
    HubFile,
    Pin,
    Progress,
    digest_of,
)

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each new attempt; bytes that arrive start the count anew."""

_SPARE = 2**26  # bytes of the disk that are left free

_LONGEST_WAIT = 60.0  # seconds that a hub may ask for

T = TypeVar("T")


def fetch(
    cache: HubCache,
    files: Sequence[HubFile],
    progress: Progress | None = None,
    endpoint: str | None = None,
) -> list[HubFile]:
    """Fetch the files that the cache lacks, one after the other, and return them.

    A file that is there is read and compared; one whose content is not the hub's is fetched again.
    progress: is told after each block (bytes there, all bytes, "bytes").
    Raises InputError where the disk has no room for what is missing, before anything is fetched;
    where the hub does not answer, refuses, or gives something else than the file.
    """
    lacking = [file for file in files if cache.faults([file])]
    check_room(cache, lacking)
    if lacking:
        check_allowed()
    total = sum(file.bytes for file in files)
    done = total - sum(file.bytes for file in lacking)
    for file in lacking:
        _fetch_one(cache, file, _told(progress, done, total), endpoint)
        done += file.bytes
    return lacking


def _told(progress: Progress | None, done: int, total: int) -> Callable[[int], None]:
    return lambda more: progress(done + more, total, "bytes") if progress else None


def check_room(cache: HubCache, files: Iterable[HubFile]) -> None:
    """Raise InputError unless the cache's disk has room for what is missing of the files."""
    needed = sum(max(file.bytes - _present(cache, file), 0) for file in files)
    folder = next(p for p in (cache.root.absolute(), *cache.root.absolute().parents) if p.exists())
    free = shutil.disk_usage(folder).free
    if needed and needed + _SPARE > free:
        raise InputError(
            f"{cache.root}: {needed / 1e9:.2f} GB are missing, but its disk has {free / 1e9:.2f} "
            "GB free; free some, or name another folder (HF_HUB_CACHE)"
        )


def _part(cache: HubCache, file: HubFile) -> Path:
    """Where a file grows until it is whole."""
    return cache.folder / "blobs" / f"{file.digest}.part"


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _present(cache: HubCache, file: HubFile) -> int:
    """Bytes of a file that need not be fetched, if they are right."""
    return max(_length(_part(cache, file)), _length(cache.content(file)))


def _fetch_one(
    cache: HubCache, file: HubFile, progress: Callable[[int], None], endpoint: str | None
) -> None:
    """Fetch a file's missing bytes, compare its digest, and put it where it is read."""
    from filelock import FileLock, Timeout

    part = _part(cache, file)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{part}.lock", timeout=0):
            if _length(cache.content(file)) == file.bytes:  # an end came before it was linked
                os.replace(cache.content(file), part)
            if _length(part) > file.bytes:
                part.unlink()
            part.touch()
            resumed = _length(part) > 0
            _fill(cache.pin, file, part, progress, endpoint)
            if resumed and digest_of(part, file) != file.digest:  # what was there was broken
                part.write_bytes(b"")
                _fill(cache.pin, file, part, progress, endpoint)
            _take(cache, file, part)
    except Timeout as error:
        raise InputError(
            f"{file.path}: another process is fetching it; wait for that one to end"
        ) from error
    Path(f"{part}.lock").unlink(missing_ok=True)


def _take(cache: HubCache, file: HubFile, part: Path) -> None:
    """Rename a fetched file to its places, if its content is the hub's."""
    found = digest_of(part, file)
    if found != file.digest:
        with part.open("rb") as stream:
            start = stream.read(60)
        part.unlink()
        raise InputError(
            f"{file.path} of {cache.pin.hub_id}: what was fetched is not the file (digest {found}; "
            f"must be {file.digest}; it begins with {start!r}); it was removed; try again, and "
            "look for a proxy that changes what passes through it"
        )
    content, path = cache.content(file), cache.path(file)
    os.replace(part, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        path.symlink_to(os.path.relpath(content, path.parent))
    except OSError:  # a file system without links
        os.replace(content, path)


def _fill(
    pin: Pin, file: HubFile, part: Path, progress: Callable[[int], None], endpoint: str | None
) -> None:
    """Append the bytes that a partial file lacks."""
    subject = f"{file.path} of {pin.hub_id}"
    while _length(part) < file.bytes:
        before = _length(part)
        try:
            _stream(pin, file, part, progress, endpoint)
        except InputError:
            raise
        except Exception as error:  # of the client's several libraries
            if _length(part) > before and _is_passing(error):
                continue  # it goes on from there at once
            retried(subject, lambda: _stream(pin, file, part, progress, endpoint), error)
        if _length(part) <= before:
            raise InputError(f"{subject}: the hub's answer holds no byte of it; try again later")


def _stream(
    pin: Pin, file: HubFile, part: Path, progress: Callable[[int], None], endpoint: str | None
) -> None:
    """Ask once for the bytes that are missing, and append what comes."""
    from huggingface_hub import get_hf_file_metadata, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    url = hf_hub_url(
        pin.hub_id, file.path, repo_type=pin.kind, revision=pin.revision, endpoint=endpoint
    )
    known = get_hf_file_metadata(url, timeout=timeout(), endpoint=endpoint)
    if known.etag != file.digest or known.size != file.bytes:
        raise InputError(
            f"{file.path} of {pin.hub_id}: the address {_shown(url)} has something else (digest "
            f"{known.etag}, {known.size} bytes; must be {file.digest}, {file.bytes} bytes): a web "
            "page of a proxy, or a copy of the hub that is not whole; nothing was fetched"
        )
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if urlsplit(known.location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # it is the hub's alone
    start = _length(part)
    if start:
        headers["Range"] = f"bytes={start}-"
    with get_session().stream(
        "GET", known.location, headers=headers, timeout=timeout(), follow_redirects=True
    ) as response:
        hf_raise_for_status(response)
        if response.headers.get("content-type", "").startswith("text/html"):
            raise InputError(f"{file.path} of {pin.hub_id}: {_A_PAGE}")
        with part.open("ab" if response.status_code == 206 else "wb") as stream:
            for block in response.iter_bytes():
                stream.write(block[: file.bytes - stream.tell()])
                progress(stream.tell())
                if stream.tell() >= file.bytes:
                    return  # whatever else the answer holds is not the file's


_A_PAGE = (
    "the hub's address gave a web page in place of data, as the login page of a network does; "
    "what was fetched before is kept; open the address in a browser"
)


# --- what can go wrong --------------------------------------------------------------------------


def check_allowed() -> None:
    """Raise InputError where the environment forbids connections."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise InputError(
            "HF_HUB_OFFLINE is set, which forbids connections; unset it, or fetch with `adamerge "
            "data download`"
        )


def timeout() -> float:
    """Seconds within which the next bytes must come."""
    from huggingface_hub import constants

    return float(constants.HF_HUB_DOWNLOAD_TIMEOUT)


def retried(subject: str, call: Callable[[], T], failed: Exception | None = None) -> T:
    """Call until it succeeds, after waits. failed: an attempt that was made before.

    Raises InputError for what does not pass by itself, NetworkError for what may and is still there
    after the last wait.
    """
    waits = iter(WAITS)
    while True:
        if failed is not None:
            wait = next(waits, None)
            if not _is_passing(failed):
                raise InputError(f"{subject}: {_reason(failed)}") from failed
            if wait is None:
                raise NetworkError(f"{subject}: {_reason(failed)}") from failed
            time.sleep(max(wait, min(_asked_for(failed), _LONGEST_WAIT)) if wait else wait)
        try:
            return call()
        except InputError:
            raise
        except Exception as error:  # of the client's several libraries
            failed = error


def _status(error: Exception) -> int | None:
    """The HTTP status that an error is about."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _asked_for(error: Exception) -> float:
    """Seconds that the hub asks to wait."""
    response = getattr(error, "response", None)
    after = response.headers.get("retry-after", "") if response is not None else ""
    return float(after) if after.isdigit() else 0.0


def _is_passing(error: Exception) -> bool:
    """Whether another attempt may succeed: the connection broke, or the hub is busy."""
    status = _status(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    return _is_a(error, "TransportError", "Timeout")


def _is_a(error: Exception, *names: str) -> bool:
    """Whether a class of the error has one of the names: which HTTP library raises it depends on
    the version of the client.
    """
    kinds = [kind.__name__ for kind in type(error).__mro__]
    return any(name in kind for kind in kinds for name in names)


def _reason(error: Exception) -> str:
    status = _status(error)
    if status in (401, 403):
        return (
            f"the hub refuses access (HTTP {status}): a gated data set needs its terms accepted on "
            "its page and a token (HF_TOKEN); or a network's proxy refuses"
        )
    if status == 404:
        return "the hub has no such repository, commit or file (HTTP 404); pin another commit"
    if status == 429:
        return "the hub answers that there are too many requests (HTTP 429); try again later"
    if status is not None:
        return f"the hub answers HTTP {status}; what was fetched is kept: try again later"
    if _is_a(error, "Timeout"):
        return (
            f"the hub gave nothing for {timeout():.0f} s; what was fetched is kept: try again, or "
            "give it more time (HF_HUB_DOWNLOAD_TIMEOUT=60)"
        )
    if _is_a(error, "TransportError"):
        return f"the hub cannot be reached ({error}); what was fetched is kept: try again"
    if isinstance(error, ValueError):  # of JSON
        return _A_PAGE
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror} ({error.filename}); what was fetched is kept"
    return f"{type(error).__name__}: {error}"


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
