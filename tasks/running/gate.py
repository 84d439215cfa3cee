"""The gate before this project's servers: lets in what this user sends, or this server's own pages.

A web page of another site can have the browser send requests to 127.0.0.1 (CSRF), can have its own
name resolve to it (DNS rebinding), and can show a page of the server in a frame (clickjacking); any
user of the machine can reach its ports. Host, Origin and Sec-Fetch-Site tell the first three, the
project's secret the last.
"""

import base64
import binascii
import hmac
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS = (
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)
_FRAMES = (b"content-security-policy", b"frame-ancestors 'self'")
_LOGIN = (
    b"www-authenticate",
    b'Basic realm="adamerge: any name; the password is in .adamerge/secret", charset="UTF-8"',
)


class Gate:
    """ASGI middleware that refuses what is not from this user, or from this server's pages."""

    def __init__(
        self,
        app: App,
        port: int,
        *,
        secret: str | None = None,
        open_paths: Sequence[str] = (),
        served: Callable[[str, str], bool] = lambda method, path: True,
    ) -> None:
        """Guard `app`, which is served on `port` of 127.0.0.1.

        With a `secret`, HTTP Basic is asked for it (any user name), except for `open_paths`;
        without one, `app` asks for itself. `served` says of a method and a path whether there is
        such a page.
        """
        self._app, self._secret, self._open, self._served = app, secret, open_paths, served
        names = [f"127.0.0.1:{port}", f"localhost:{port}"]
        if port == 80:  # which browsers leave out
            names += ["127.0.0.1", "localhost"]
        self._hosts = {name.encode() for name in names}
        self._origins = {b"http://" + host for host in self._hosts}
        self._address = names[0]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, 401 or 404 by itself, or hand the request on."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = [(name.lower(), value) for name, value in scope["headers"]]
        refusal = self._refusal(scope, headers)
        if refusal is None:
            return await self._app(scope, receive, _with_headers(send))
        if scope["type"] == "websocket":
            await receive()
            return await send({"type": "websocket.close", "code": 1008})  # becomes 403
        return await _answer(_with_headers(send), *refusal)

    def _refusal(
        self, scope: Scope, headers: Sequence[tuple[bytes, bytes]]
    ) -> tuple[int, str] | None:
        """Say with which status and words the request is refused; None if it is let in."""
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 403, f"Host must be {self._address}: open http://{self._address}"
        if any(value not in self._origins for name, value in headers if name == b"origin"):
            return 403, f"Origin must be http://{self._address}: pages of other sites get nothing"
        if _from_another_site(scope, headers):
            return 403, "only pages of this server may ask for this; open it by its own address"
        if scope["path"] not in self._open and not self._knows_secret(headers):
            return 401, "the password is in .adamerge/secret of the project (any user name)"
        if scope["type"] == "http" and not self._served(scope["method"], scope["path"]):
            return 404, "adamerge does not serve this part"
        return None

    def _knows_secret(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        if self._secret is None:
            return True
        given = [value for name, value in headers if name == b"authorization"]
        found = re.fullmatch(rb"(?i:basic) +([A-Za-z0-9+/=]+)", given[0]) if given else None
        if not found or len(given) > 1:
            return False
        try:
            _, _, password = base64.b64decode(found[1], validate=True).partition(b":")
        except binascii.Error:
            return False
        return hmac.compare_digest(password, self._secret.encode())


def serve(app: App, port: int, descriptor: int, **options: Any) -> None:
    """Serve `app` on the listening socket `descriptor`, which the parent opened on `port`.

    `options` are those of Gate. So no other process can take the port before the server does.
    """
    import uvicorn

    config = uvicorn.Config(
        Gate(app, port, **options),
        proxy_headers=False,  # there is no proxy: X-Forwarded-For is a lie
        server_header=False,
        log_level="warning",
        timeout_keep_alive=30,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def _from_another_site(scope: Scope, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a browser says so; a link that the user follows from elsewhere is let in."""
    said = dict(headers)
    if said.get(b"sec-fetch-site", b"none") in (b"none", b"same-origin"):
        return False
    follows_link = (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and said.get(b"sec-fetch-mode") == b"navigate"
        and said.get(b"sec-fetch-dest") == b"document"
    )
    return not follows_link


def _with_headers(send: Send) -> Send:
    """Add to each answer what keeps it from other sites' frames, scripts and windows."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            ours = {name for name, _ in _HEADERS}
            theirs = [(n, v) for n, v in message.get("headers", ()) if n.lower() not in ours]
            message = {**message, "headers": [*theirs, *_HEADERS, _FRAMES]}
        await send(message)

    return sending


async def _answer(send: Send, status: int, text: str) -> None:
    body = f"adamerge: {text}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *([_LOGIN] if status == 401 else []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
