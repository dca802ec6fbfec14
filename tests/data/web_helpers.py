"""A web server on this machine, and a downloader that may reach it, for the tests of downloads.

The downloader of the product refuses this machine; here its check and its resolver are replaced.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from distillery.data.conditions.annotate import encode_png
from distillery.data.ingest.download import Downloader

IMAGE = b"\xff\xd8 not quite a JPEG"
HOST = "img.test"
_SETTINGS = {"timeout_s": 60.0, "max_bytes": 1000, "num_retries": 0, "max_per_host": 8}


@dataclass
class Web:
    """`pages` maps a path to a function of the request; `seen` is [(path, Host header)]."""

    port: int
    pages: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def url(self, path: str, host: str = HOST) -> str:
        return f"http://{host}:{self.port}{path}"

    def resolve(self, host: str, port: int, timeout_s: float) -> list[str]:
        """Every name is this machine."""
        self.asked.append(host)
        return ["127.0.0.1"]

    def downloader(self, **changes: Any) -> Downloader:
        given = {"is_allowed": lambda address: True, "resolve": self.resolve, "backoff_s": 0.01}
        return Downloader(**{**_SETTINGS, **given, **changes})

    def fetch(self, path: str, **changes: Any) -> tuple[bytes | None, str]:
        return self.downloader(**changes).fetch(self.url(path))


def answer(
    body: bytes = IMAGE, status: int = 200, **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    """A page; `Content_Length="7"` replaces the right one, None leaves it out."""

    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            if value is not None:
                handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return respond


def redirect(location: str, status: int = 302) -> Callable[[BaseHTTPRequestHandler], None]:
    return answer(b"", status, Location=location)


@contextlib.contextmanager
def serve(context=None) -> Iterator[Web]:
    """A server in a thread; with an SSL context it speaks TLS."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.seen.append((self.path, self.headers["Host"]))
            page = web.pages.get(self.path, answer(b"", 404))
            with contextlib.suppress(OSError):  # the client hangs up on answers it refuses
                page(self)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    web = Web(server.server_port)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def serve_to_ingest(monkeypatch: pytest.MonkeyPatch, images: Sequence[np.ndarray]) -> Iterator[Web]:
    """Serves them as /0.png and so on; the stage `ingest` may reach it."""
    with serve() as running:
        for i, image in enumerate(images):
            running.pages[f"/{i}.png"] = answer(encode_png(image))
        reaching = {"is_allowed": lambda address: True, "resolve": running.resolve}
        patched = functools.partial(Downloader, **reaching, backoff_s=0.01)
        monkeypatch.setattr("distillery.stages.ingest.Downloader", patched)
        yield running
