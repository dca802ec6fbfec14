"""A hub on loopback that takes what `huggingface_hub` uploads, and keeps it."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeHub:
    """`files` by name, `requests` as (method, path), `tokens` by path."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens: dict[str, str | None] = {}
        self.repository: dict = {}

    def answer(self, method: str, path: str, body: bytes) -> dict:
        """What the hub says to one request."""
        self.requests.append((method, path))
        if path == "/api/repos/create":
            self.repository = json.loads(body)
            return {"url": f"{self.address}/me/x", "id": "1"}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return {
                "files": [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in files
                ]
            }
        if "/commit/" in path:
            self._keep(body)
            return {
                "commitOid": "0" * 40,
                "commitUrl": f"{self.address}/me/x/commit/0",
                "success": True,
            }
        return {"sha": "0" * 40, "siblings": [], "id": "me/x", "errors": [], "warnings": []}

    def _keep(self, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                value = line["value"]
                assert value["encoding"] == "base64"
                self.files[value["path"]] = base64.b64decode(value["content"])


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that answers until the block ends; its `address` is on this machine."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.tokens[self.path] = self.headers.get("Authorization")
            said = json.dumps(hub.answer(self.command, self.path, body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = do_HEAD = _serve  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
