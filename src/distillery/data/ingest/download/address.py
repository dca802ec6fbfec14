"""Which network addresses a list of URLs may reach: public ones only.

In: a host name or an address. Out: the host's addresses, or whether an address is public. Lists of
URLs are written by strangers: one may name this machine, its network or a cloud's metadata
service. Nothing is connected here.
"""

import ipaddress
import queue
import socket
import threading
from ipaddress import IPv4Address, IPv6Address

from distillery.data.ingest.download.url import DownloadError

# Beside what `ipaddress` knows: protocol assignments (a cloud's metadata service is in it), the
# former 6to4 relays, Azure's host agent, and shared address space (CGNAT, RFC 6598).
_REFUSED = tuple(
    ipaddress.ip_network(name)
    for name in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "100.64.0.0/10")
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


def is_public(address: str) -> bool:
    """True for an address of the public internet; an IPv6 one with IPv4 inside counts as that."""
    ip = ipaddress.ip_address(address)
    if (inner := _inner(ip)) is not None:
        return is_public(str(inner))
    special = (
        ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_reserved
        or ip.is_unspecified or getattr(ip, "is_site_local", False)
    )  # fmt: skip
    teredo = isinstance(ip, IPv6Address) and ip.teredo is not None
    return ip.is_global and not special and not teredo and not any(ip in net for net in _REFUSED)


def _inner(ip: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for: mapped, 6to4 or NAT64."""
    if isinstance(ip, IPv4Address):
        return None
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


def resolve(host: str, port: int, timeout_s: float) -> list[str]:
    """Addresses of a host, in the system's order, or DownloadError.

    The system's resolver takes no time limit, so it runs in a thread that is left behind (and ends
    by the resolver's own limit) when it is late.
    """
    answers: queue.SimpleQueue = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=look_up, daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise DownloadError("timeout", retry=True) from None
    if isinstance(answer, Exception):
        again = isinstance(answer, socket.gaierror) and answer.errno == socket.EAI_AGAIN
        raise DownloadError("dns", retry=again)
    return list(dict.fromkeys(entry[4][0] for entry in answer))
