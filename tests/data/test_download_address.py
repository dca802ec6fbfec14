import socket
import time

import pytest

from distillery.data.ingest.download import address as download_address
from distillery.data.ingest.download.address import is_public, resolve
from distillery.data.ingest.download.url import DownloadError


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.88.99.1",
        "168.63.129.16", "198.18.0.1", "192.0.2.1", "224.0.0.1", "239.1.1.1", "240.0.0.1",
        "255.255.255.255", "::", "::1", "::7f00:1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1",
        "fd00:ec2::254", "ff02::1", "2001:db8::1", "2001::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "::ffff:169.254.169.254", "::ffff:100.64.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1",
        "2002:7f00:1::1", "2002:a00:1::1",
    ],
)  # fmt: skip
def test_addresses_that_are_refused(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "198.57.172.62", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"],
)
def test_public_addresses(address):
    assert is_public(address)


def test_resolving_a_literal_needs_no_network():
    assert resolve("127.0.0.1", 80, 5.0) == ["127.0.0.1"]
    assert resolve("::1", 80, 5.0) == ["::1"]


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (socket.gaierror(socket.EAI_NONAME, ""), False),
        (socket.gaierror(socket.EAI_AGAIN, ""), True),
    ],
)
def test_unknown_names(monkeypatch, error, retry):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(download_address.socket, "getaddrinfo", fail)
    with pytest.raises(DownloadError) as raised:
        resolve("a.test", 80, 5.0)
    assert (raised.value.status, raised.value.retry) == ("dns", retry)


def test_a_slow_resolver_is_left_behind(monkeypatch):
    monkeypatch.setattr(download_address.socket, "getaddrinfo", lambda *_, **__: time.sleep(60))
    started = time.monotonic()
    with pytest.raises(DownloadError, match="timeout"):
        resolve("a.test", 80, 0.1)
    assert time.monotonic() - started < 30
