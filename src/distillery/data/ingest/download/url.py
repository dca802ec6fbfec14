"""URLs as lists of images hold them, made fit for a request or refused by a short reason.

In: whatever stands in a URL column. Out: a `Target`, or `DownloadError` with a status such as
"bad url". Nothing is resolved or requested here, and whether a host's address may be reached is
`address`'s to say.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

_MAX_URL_CHARS = 8192
_SCHEMES = {"http": 80, "https": 443}
# Left as they are: what RFC 3986 reserves, and "%", because most lists are encoded already.
_KEPT = "%!$&'()*+,/:;=?@[]~"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST = re.compile(r"(?:[a-z0-9_-]{1,63}\.)+[a-z0-9_-]{1,63}\.?")
_HOST_AND_PORT = re.compile(r"[^/:?#]*:\d+(?:[/?#]|$)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class DownloadError(Exception):
    """Why one URL gave no image. `status` is short and of few kinds, so that it can be counted."""

    def __init__(self, status: str, *, retry: bool = False) -> None:
        super().__init__(status)
        self.status, self.retry = status, retry


@dataclass(frozen=True)
class Target:
    """Where one request goes. `path` includes the query and is plain ASCII."""

    scheme: str
    host: str
    port: int
    path: str

    def resolve(self, location: str) -> "Target":
        """The target of a redirect from here, absolute or relative."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        try:
            joined = urljoin(f"{self.scheme}://{host}:{self.port}{self.path}", location.strip())
        except ValueError:
            raise DownloadError("bad url") from None
        return parse_url(joined)


def parse_url(text: Any) -> Target:
    """Read a URL: http(s) only, without credentials; no scheme means http, blanks are encoded."""
    if not isinstance(text, str) or not text.strip() or len(text) > _MAX_URL_CHARS:
        raise DownloadError("bad url")
    stripped = text.strip()
    if _CONTROL.search(stripped):
        raise DownloadError("bad url")
    try:
        parts = urlsplit(_with_scheme(stripped))
        port = parts.port
        host = _host(parts.hostname or "")
        path = quote(parts.path or "/", safe=_KEPT)
        query = quote(parts.query, safe=_KEPT)
    except ValueError:
        raise DownloadError("bad url") from None
    if parts.scheme not in _SCHEMES:
        raise DownloadError("refused scheme")
    if "@" in parts.netloc:
        raise DownloadError("credentials in url")
    if not host or port == 0:
        raise DownloadError("bad url")
    return Target(
        parts.scheme, host, port or _SCHEMES[parts.scheme], f"{path}?{query}" if query else path
    )


def _with_scheme(text: str) -> str:
    if text.startswith("//"):
        return f"http:{text}"
    has_scheme = _SCHEME.match(text) and ("://" in text or not _HOST_AND_PORT.match(text))
    return text if has_scheme else f"http://{text}"


def _host(name: str) -> str:
    """ASCII host name or IP address; empty where it is neither, or a name without a dot."""
    try:
        return str(ipaddress.ip_address(name)) if "%" not in name else ""
    except ValueError:
        ascii_name = name if name.isascii() else name.encode("idna").decode("ascii").lower()
        return ascii_name if _HOST.fullmatch(ascii_name) else ""
