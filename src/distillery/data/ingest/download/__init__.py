"""Downloads what URLs point to, from public addresses only.

In: URLs of unknown origin and limits. Out: bytes, or a short status such as "http 404". Each hop of
a redirect is treated like a new URL: its host is resolved once, all of its addresses must be
public, and the connection goes to the address that was checked. Nothing is decoded or written.
"""

import contextlib
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from distillery.data.ingest.download import address as download_address
from distillery.data.ingest.download.http import Clock, request
from distillery.data.ingest.download.url import DownloadError, Target, parse_url
from distillery.data.ingest.sample import SUCCESS

MAX_REDIRECTS = 5
# Retries wait 1, 2, 4 ... s: a server that is overloaded is not helped by an immediate one.
_BACKOFF_S = 1.0
_POLL_S = 0.2


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Turns:
    """Limits how many requests go to one host at a time."""

    def __init__(self) -> None:
        self._busy: Counter = Counter()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def at(self, host: str, limit: int, stop: threading.Event) -> Iterator[None]:
        with self._changed:
            while self._busy[host] >= limit and not stop.is_set():
                self._changed.wait(_POLL_S)
            self._busy[host] += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy[host] -= 1
                if not self._busy[host]:  # a list names millions of hosts
                    del self._busy[host]
                self._changed.notify_all()


@dataclass(frozen=True)
class Downloader:
    """Limits, and who decides about addresses; usable from many threads.

    `is_allowed` and `resolve` are arguments so that tests reach a server on this machine: with the
    defaults none can be. `stop` ends waiting and running requests.
    """

    timeout_s: float
    max_bytes: int
    num_retries: int
    max_per_host: int
    is_allowed: Callable[[str], bool] = download_address.is_public
    resolve: Callable[[str, int, float], list[str]] = download_address.resolve
    backoff_s: float = _BACKOFF_S
    context: ssl.SSLContext = field(default_factory=_tls_context)
    stop: threading.Event = field(default_factory=threading.Event)
    _turns: _Turns = field(default_factory=_Turns)

    def fetch(self, url: Any) -> tuple[bytes | None, str]:
        """(bytes, "success") or (None, why not). Raises nothing: one URL never stops a run."""
        status = ""
        for attempt in range(self.num_retries + 1):
            if attempt and self.stop.wait(self.backoff_s * 2 ** (attempt - 1)):
                break
            try:
                return self._follow(parse_url(url)), SUCCESS
            except DownloadError as error:
                status = error.status
                if not error.retry:
                    break
            except Exception as error:  # a hole in our own reading of a hostile answer
                return None, f"unexpected {type(error).__name__}"
        return None, status

    def _follow(self, target: Target) -> bytes:
        """The body at the end of the redirects; the clock runs over all of them."""
        clock = Clock(self.timeout_s, self.stop)
        for _ in range(MAX_REDIRECTS + 1):
            with contextlib.ExitStack() as stack:
                with clock.paused():
                    stack.enter_context(self._turns.at(target.host, self.max_per_host, self.stop))
                addresses = self._addresses(target, clock)
                answer = request(
                    target, addresses, clock=clock, context=self.context, max_bytes=self.max_bytes
                )
            if answer.location is None:
                return answer.body
            target = target.resolve(answer.location)
        raise DownloadError("too many redirects")

    def _addresses(self, target: Target, clock: Clock) -> list[str]:
        addresses = self.resolve(target.host, target.port, clock.remaining_s())
        if not addresses:
            raise DownloadError("dns")
        if not all(self.is_allowed(address) for address in addresses):
            raise DownloadError("refused address")
        return addresses
