"""One HTTP request to one checked address: capped in bytes, and by a clock over all of it.

In: a `Target`, the addresses that its host may be reached at, a `Clock`. Out: an `Answer`, or
`DownloadError`. The socket goes to the given address, while the Host header, SNI and the check of
the certificate keep the host's name: a name that resolves to something else a moment later changes
nothing. Redirects are not followed, proxies and the environment's proxy variables not used.
"""

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distillery.data.ingest.download.url import DownloadError, Target

_READ_BYTES = 2**16
_MAX_ADDRESSES = 4
_REDIRECTS = (301, 302, 303, 307, 308)
_AGAIN = (408, 429)  # and all of 5xx
# Sites that ask not to be used for training or listed; img2dataset honours the same words.
_OPT_OUTS = ("noai", "noimageai", "noindex", "noimageindex")
_COMPRESSIONS = ("br", "compress", "deflate", "gzip", "x-gzip", "zstd")
_HEADERS = {
    "User-Agent": "diffusion-distillery",
    "Accept": "image/*,*/*;q=0.5",
    "Connection": "close",
}


@dataclass(frozen=True)
class Answer:
    """The image's bytes, or where to look for them (`location`)."""

    body: bytes = b""
    location: str | None = None


class Clock:
    """What is left of a request's time; every wait for the network asks it."""

    def __init__(self, seconds: float, stop: threading.Event) -> None:
        self._deadline, self._stop = time.monotonic() + seconds, stop

    def remaining_s(self) -> float:
        """Seconds left. Raises DownloadError where there are none, or the run is ending."""
        if self._stop.is_set():
            raise DownloadError("interrupted")
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise DownloadError("timeout", retry=True)
        return left

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here does not count: waiting for our own turn is not the server's fault."""
        started = time.monotonic()
        yield
        self._deadline += time.monotonic() - started


def request(
    target: Target,
    addresses: Sequence[str],
    *,
    clock: Clock,
    context: ssl.SSLContext,
    max_bytes: int,
) -> Answer:
    """GET `target` from one of `addresses`. Raises DownloadError with the reason."""
    with _named_errors(), contextlib.ExitStack() as stack:
        sock = stack.enter_context(contextlib.closing(_connect(addresses, target.port, clock)))
        if target.scheme == "https":
            sock.settimeout(clock.remaining_s())
            name = target.host.rstrip(".")
            sock = stack.enter_context(context.wrap_socket(sock, server_hostname=name))
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.default_port = 443 if target.scheme == "https" else 80
        connection.sock = _ClockedSocket(sock, clock)
        connection.request("GET", target.path, headers=_HEADERS)
        with connection.getresponse() as response:
            return _read(response, max_bytes)


def _connect(addresses: Sequence[str], port: int, clock: Clock) -> socket.socket:
    """A connection to the first address that answers."""
    tried = list(addresses[:_MAX_ADDRESSES])
    for num_left, address in zip(range(len(tried), 0, -1), tried, strict=True):
        try:
            # One that swallows packets, as IPv6 often does, leaves time for the others.
            share_s = clock.remaining_s() / num_left
            return socket.create_connection((address, port), timeout=share_s)
        except OSError:
            if num_left == 1:
                raise
    raise DownloadError("dns")


def _read(response: http.client.HTTPResponse, max_bytes: int) -> Answer:
    if response.status in _REDIRECTS:
        if (location := response.getheader("Location")) is None:
            raise DownloadError("bad redirect")
        return Answer(location=_as_utf8(location))
    if response.status != 200:
        again = response.status in _AGAIN or response.status >= 500
        raise DownloadError(f"http {response.status}", retry=again)
    if _opts_out(response):
        raise DownloadError("opted out")
    if response.getheader("Content-Encoding", "").strip().lower() in _COMPRESSIONS:
        raise DownloadError("compressed body")  # was not asked for, and may be a bomb
    return Answer(body=_read_body(response, max_bytes))


def _as_utf8(header: str) -> str:
    """http.client reads headers as Latin-1, while most servers send UTF-8."""
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return header


def _opts_out(response: http.client.HTTPResponse) -> bool:
    values = ",".join(response.headers.get_all("X-Robots-Tag", [])).lower()
    words = values.replace(":", ",").split(",")
    return any(word.strip() in _OPT_OUTS for word in words)


def _read_body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """The whole body; Content-Length is believed only where it says that it's too much."""
    if (response.length or 0) > max_bytes:
        raise DownloadError("too large")
    body = bytearray()
    while data := response.read(min(_READ_BYTES, max_bytes + 1 - len(body))):
        body += data
        if len(body) > max_bytes:
            raise DownloadError("too large")
    if response.length:
        raise DownloadError("cut short", retry=True)
    if not body:
        raise DownloadError("empty")
    return bytes(body)


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    """Every way in which a server can fail, as a DownloadError."""
    try:
        yield
    except http.client.IncompleteRead:
        raise DownloadError("cut short", retry=True) from None
    except TimeoutError:
        raise DownloadError("timeout", retry=True) from None
    except ssl.SSLError:
        raise DownloadError("tls") from None
    except OSError:  # before HTTPException: a server that hangs up is both
        raise DownloadError("connection", retry=True) from None
    except http.client.HTTPException:
        raise DownloadError("bad answer") from None


class _ClockedSocket:
    """What `http.client` uses of a socket. Reading a byte at a time does not wind the clock up."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._sock, self._clock = sock, clock

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._clock.remaining_s())
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_ClockedReader(self._sock, self._clock))

    def close(self) -> None:
        """`request` closes the socket; http.client would while the body is still to be read."""


class _ClockedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._sock, self._clock = sock, clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        self._sock.settimeout(self._clock.remaining_s())
        return self._sock.recv_into(buffer)
