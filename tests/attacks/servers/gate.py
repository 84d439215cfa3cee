"""The gate by itself."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.running.gate import Gate
from tests.attacks.cases import Case, FaultError
from tests.attacks.servers.hostile import FOREIGN_HOSTS, FOREIGN_ORIGINS


def _gate(folder: Path) -> None:
    """Every combination of host, origin, fetch headers and kind; let in is only what is ours."""
    port = 8123
    reached: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    gate = Gate(app, port)
    ours = f"127.0.0.1:{port}", f"localhost:{port}"
    hosts = [each.format(port=port) for each in FOREIGN_HOSTS] + list(ours)
    origins = (
        [each.format(port=port) for each in FOREIGN_ORIGINS]
        + [f"http://{o}" for o in ours]
        + [None]
    )
    sites = (None, "none", "same-origin", "same-site", "cross-site", "else")
    modes = (None, "navigate", "cors", "no-cors", "websocket")
    dests = (None, "document", "iframe", "empty")
    for host, origin, site, mode, dest, kind in itertools.product(
        hosts, origins, sites, modes, dests, ("http", "websocket")
    ):
        given = {
            "host": host,
            "origin": origin,
            "sec-fetch-site": site,
            "sec-fetch-mode": mode,
            "sec-fetch-dest": dest,
        }
        headers = [(k.encode(), v.encode()) for k, v in given.items() if v is not None]
        link = kind == "http" and mode == "navigate" and dest == "document"
        good = host in ours and (origin is None or origin.removeprefix("http://") in ours)
        good = good and not (origin and not origin.startswith("http:"))
        good = good and (site in (None, "none", "same-origin") or link)
        reached.clear()
        scope = {"type": kind, "method": "GET", "path": "/", "headers": headers}
        _run(gate(scope, _nothing, _swallow))
        if bool(reached) != good:
            raise FaultError(f"{kind} {given}: {'let in' if reached else 'refused'}")


def _run(coroutine: Any) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise FaultError("the gate waits")


async def _nothing() -> dict[str, Any]:
    return {"type": "websocket.connect"}


async def _swallow(message: Any) -> None:
    return None


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    yield Case("the gate, every combination of headers", _gate, "critical", seconds=120)
