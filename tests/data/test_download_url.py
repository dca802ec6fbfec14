import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from data_helpers import ROOT

from distillery.data.ingest.download.url import DownloadError, Target, parse_url

LAION = Path(
    os.environ.get("DISTILLERY_LAION", ROOT.parent / "shared" / "data" / "laion-urls.parquet")
)


def status_of(url):
    with pytest.raises(DownloadError) as raised:
        parse_url(url)
    return raised.value.status


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://a.test/x.jpg", ("http", "a.test", 80, "/x.jpg")),
        ("  HTTPS://A.Test:8443/x?y=1&z#part ", ("https", "a.test", 8443, "/x?y=1&z")),
        ("a.test/x.jpg", ("http", "a.test", 80, "/x.jpg")),
        ("a.test:81/x.jpg", ("http", "a.test", 81, "/x.jpg")),
        ("//a.test/x.jpg", ("http", "a.test", 80, "/x.jpg")),
        ("http://a.test", ("http", "a.test", 80, "/")),
        ("http://a.test?q=1", ("http", "a.test", 80, "/?q=1")),
        ("http://a.test/a b%20c.jpg?d e", ("http", "a.test", 80, "/a%20b%20c.jpg?d%20e")),
        ("http://a.test/é.jpg", ("http", "a.test", 80, "/%C3%A9.jpg")),
        ("http://bücher.test/x", ("http", "xn--bcher-kva.test", 80, "/x")),
        ("http://198.57.172.62/x", ("http", "198.57.172.62", 80, "/x")),
        ("http://[2606:4700::1111]:8080/x", ("http", "2606:4700::1111", 8080, "/x")),
        ("http://a_b.test/x", ("http", "a_b.test", 80, "/x")),
    ],
)
def test_urls_that_can_be_requested(url, target):
    assert parse_url(url) == Target(*target)


@pytest.mark.parametrize(
    ("url", "status"),
    [
        (None, "bad url"),
        (float("nan"), "bad url"),
        (7, "bad url"),
        ("", "bad url"),
        ("UNLIKELY", "bad url"),
        ("http://", "bad url"),
        ("http://a b.test/x", "bad url"),
        ("http://a.test:99999/x", "bad url"),
        ("http://a.test:0/x", "bad url"),
        ("http://a..test/x", "bad url"),
        ("http://[::1/x", "bad url"),
        ("http://[fe80::1%25eth0]/x", "bad url"),
        ("http://a.test/x\r\nHost: other", "bad url"),
        ("http://a.test\\@b.test/x", "credentials in url"),
        ("http://a.test/" + "x" * 9000, "bad url"),
        ("http://localhost/x", "bad url"),
        ("http://2130706433/x", "bad url"),
        ("http://\udc80.test/x", "bad url"),
        ("http://user:secret@a.test/x", "credentials in url"),
        ("http://user@a.test/x", "credentials in url"),
        ("file:///etc/passwd", "refused scheme"),
        ("ftp://a.test/x", "refused scheme"),
        ("data:image/png;base64,AAAA", "refused scheme"),
        ("gopher://a.test:70/x", "refused scheme"),
    ],
)
def test_urls_that_are_refused(url, status):
    assert status_of(url) == status


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://b.test/y", ("https", "b.test", 443, "/y")),
        ("//b.test/y", ("https", "b.test", 443, "/y")),
        ("/y z", ("https", "a.test", 8443, "/y%20z")),
        ("y?q", ("https", "a.test", 8443, "/d/y?q")),
        ("http://b.test/y", ("http", "b.test", 80, "/y")),
    ],
)
def test_redirects_are_resolved(location, expected):
    assert parse_url("https://a.test:8443/d/x").resolve(location) == Target(*expected)


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "http://u:p@b.test/", "http://[", "ftp:"]
)
def test_redirects_are_checked_like_any_url(location):
    with pytest.raises(DownloadError):
        parse_url("http://a.test/x").resolve(location)


def test_redirect_from_an_ipv6_address():
    assert parse_url("http://[2606:4700::1111]/x").resolve("/y").host == "2606:4700::1111"


def test_every_laion_url_is_a_target_or_has_a_reason():
    if not LAION.is_file():
        pytest.skip(f"no LAION rows at {LAION}; set DISTILLERY_LAION")
    refused = {}
    hosts = set()
    for url in pq.read_table(LAION)["URL"].to_pylist():
        try:
            target = parse_url(url)
        except DownloadError as error:
            refused[url] = error.status
        else:
            assert target.path.isascii()
            assert " " not in target.path
            hosts.add(target.host)
    assert refused == {"UNLIKELY": "bad url"}
    assert "198.57.172.62" in hosts
