"""A hub on 127.0.0.1: the routes that fetching a data set or model takes, with faults to order."""

import hashlib
import io
import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Fault:
    """What becomes of one answer that holds a file's bytes."""

    cut_after: int | None = None
    """The connection ends after so many bytes."""
    status: int | None = None
    html: bool = False
    """A web page in place of the file."""
    wrong: bool = False
    """Other bytes, of the same number."""
    seconds: float = 0.0
    """Before the first byte."""


@dataclass
class Hub:
    """A hub with one data set, or model, and what was asked of it."""

    hub_id: str
    files: dict[str, bytes]
    address: str = ""
    faults: deque[Fault] = field(default_factory=deque)
    """Of the next answers to GET of a file, one each."""
    api_status: deque[int] = field(default_factory=deque)
    """Of the next answers about the repository; 200 where there is none."""
    api_html: bool = False
    listing: Any = None
    """In place of the list of files."""
    sent: dict[str, int] = field(default_factory=dict)
    """Bytes sent by file."""
    asked: list[str] = field(default_factory=list)
    pace: float = 0.0
    """Seconds after each block of 4 KB."""
    kind: str = "datasets"
    """Or models, whose files have no kind before their id."""


@contextmanager
def serving(hub: Hub, *others: Hub) -> Iterator[Hub]:
    """Serve a hub, and others at the same address, until the end of the block."""
    handler = type("Handler", (_Handler,), {"hubs": (hub, *others)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hubs: tuple[Hub, ...]
    hub: Hub
    """The one that an address is of; the first where it is of none."""

    def log_message(self, format: str, *values: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        named = (hub for hub in self.hubs if f"/{hub.hub_id}/" in path)
        self.hub = next(named, self.hubs[0])
        self.hub.asked.append(f"{self.command} {path}")
        kind = "" if self.hub.kind == "models" else f"/{self.hub.kind}"
        if found := re.fullmatch(
            rf"{kind}/{self.hub.hub_id}/resolve/(?:{REVISION}|main)/(.+)", path
        ):
            self._file(found[1], body)
        elif path.startswith(f"/api/{self.hub.kind}/{self.hub.hub_id}/"):
            self._about(path)
        else:
            self._send(404, b"", body)

    def _about(self, path: str) -> None:
        if self.hub.api_html:
            return self._send(200, b"<html>log in</html>", True, {"Content-Type": "text/html"})
        status = self.hub.api_status.popleft() if self.hub.api_status else 200
        if status != 200:
            return self._send(status, b"{}", True)
        content: Any
        if "/tree/" in path and self.hub.listing is not None:
            content = self.hub.listing
        elif "/tree/" in path:
            content = [
                {
                    "type": "file",
                    "path": name,
                    "size": len(data),
                    "oid": hashlib.sha1(data).hexdigest(),
                    "lfs": {"oid": digest(data), "size": len(data), "pointerSize": 130},
                }
                for name, data in self.hub.files.items()
            ]
        else:
            named = [{"rfilename": name} for name in self.hub.files]
            content = {"id": self.hub.hub_id, "sha": REVISION, "tags": [], "siblings": named}
        return self._send(200, json.dumps(content).encode(), True, _JSON)

    def _file(self, name: str, body: bool) -> None:
        data = self.hub.files.get(name)
        if data is None:
            return self._send(404, b"", body, {"X-Error-Code": "EntryNotFound"})
        fault = self.hub.faults.popleft() if body and self.hub.faults else Fault()
        time.sleep(fault.seconds)
        if fault.status:
            return self._send(fault.status, b"", body)
        if fault.html:
            return self._send(200, b"<html>log in</html>", body, {"Content-Type": "text/html"})
        headers = {"ETag": f'"{digest(data)}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
        data = bytes(len(data)) if fault.wrong else data
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(start[1]) if start else 0
        if start:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        sent = data[first:] if body else data
        return self._send(206 if start else 200, sent, body, headers, fault.cut_after, name)

    def _send(
        self,
        status: int,
        content: bytes,
        body: bool,
        headers: dict[str, str] | None = None,
        cut_after: int | None = None,
        name: str = "",
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if not body:
            return
        try:
            part = content if cut_after is None else content[:cut_after]
            for start in range(0, len(part), 4096):
                self.wfile.write(part[start : start + 4096])
                if name:
                    count = len(part[start : start + 4096])
                    self.hub.sent[name] = self.hub.sent.get(name, 0) + count
                time.sleep(self.hub.pace)
        except OSError:  # the client is gone
            self.close_connection = True
        if cut_after is not None:
            self.close_connection = True


_JSON = {"Content-Type": "application/json"}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- data sets in the exact formats -------------------------------------------------------------


def png(value: int, side: int = 8) -> bytes:
    """Encode an image of one colour."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def table(labels: list[Any], classes: int, *, first: int = 0, padding: int = 0) -> bytes:
    """Write a parquet file as the hub has it: struct images, labels with the names' metadata.

    Image i is of colour first + i. padding: bytes of noise after each image, to make files large.
    """
    noise = np.random.default_rng(first).bytes(padding)
    images = [
        {"bytes": png((first + i) % 256) + noise, "path": f"{i}.png"} for i in range(len(labels))
    ]
    names = [str(i) for i in range(classes)]
    features = {
        "image": {"_type": "Image"},
        "label": {"names": names, "_type": "ClassLabel"},
    }
    info = json.dumps({"info": {"features": features}})
    content = pa.table({"image": images, "label": labels}).replace_schema_metadata(
        {"huggingface": info}
    )
    buffer = io.BytesIO()
    parquet.write_table(content, buffer, row_group_size=4)
    return buffer.getvalue()


ENTRY = """\
title: Toy
licence: {{says: free, page: "https://example.org"}}
hub:
  id: toys/toy
  format: {format}
  image: {image}
  label: {label}
  files: {{train: ["data/train-*"], test: ["data/test-*"]}}
labels: {{bases: {bases}, replace: {replace}}}
images: {{train: {train}, test: {test}}}
published_test_images: {test}
bytes: {{hub: null, original: 1000}}
original: {{torchvision: null}}
names_of: fusionbench
refused: null
doubtful: []
sources: []
templates: ["a {{}}."]
classes: ["zero", "one"]
variants: {{tall: ["nil", "uno"]}}
"""


def write_entry(
    folder: Path,
    train: int,
    test: int,
    *,
    bases: str = "[0]",
    replace: str = "{}",
    format: str = "parquet",
    image: str = "image",
    label: str = "label",
) -> None:
    """Write the catalogue's file of the data set `toy`."""
    folder.mkdir(exist_ok=True)
    text = ENTRY.format(
        train=train,
        test=test,
        bases=bases,
        replace=replace,
        format=format,
        image=image,
        label=label,
    )
    (folder / "toy.yaml").write_text(text)


def toy(train: int = 20, test: int = 10, padding: int = 0) -> Hub:
    """Make a hub with the data set `toys/toy`: two classes, and a split that nothing needs."""
    half = train // 2
    return Hub(
        "toys/toy",
        {
            "README.md": b"# toy",
            "data/train-00000-of-00002.parquet": table([0, 1] * (half // 2), 2, padding=padding),
            "data/train-00001-of-00002.parquet": table(
                [0, 1] * ((train - half) // 2), 2, first=half, padding=padding
            ),
            "data/test-00000-of-00001.parquet": table([0, 1] * (test // 2), 2, first=100),
            "data/contrast-00000-of-00001.parquet": table([0, 1], 2),
        },
    )
