import datetime
import socket
import ssl
import threading
import time
from types import SimpleNamespace

import pytest
from web_helpers import IMAGE, answer, serve

from distillery.data.ingest.download import http as download_http
from distillery.data.ingest.download.http import Clock
from distillery.data.ingest.download.url import DownloadError


@pytest.fixture
def web():
    with serve() as running:
        yield running


# With the right length, none at all, one that says less than comes, and in chunks without end.
@pytest.mark.parametrize("length", ["5000", None])
def test_bodies_are_capped(web, length):
    web.pages["/x"] = answer(b"x" * 5000, Content_Length=length)
    assert web.fetch("/x") == (None, "too large")


def test_a_length_that_says_too_little_gives_that_much(web):
    web.pages["/x"] = answer(b"x" * 5000, Content_Length="10")
    assert web.fetch("/x") == (b"x" * 10, "success")


def test_endless_chunks_are_capped(web):
    def endless(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            handler.wfile.write(b"a\r\n0123456789\r\n")

    web.pages["/x"] = endless
    assert web.fetch("/x") == (None, "too large")


def test_a_body_of_the_limit_passes(web):
    web.pages["/x"] = answer(b"x" * 1000)
    assert web.fetch("/x") == (b"x" * 1000, "success")


@pytest.mark.parametrize("where", ["status", "headers", "body", "silence"])
def test_a_slow_drip_meets_the_clock(web, where):
    starts = {
        "status": b"",
        "headers": b"HTTP/1.1 200 OK\r\nX: ",
        "body": b"HTTP/1.1 200 OK\r\n\r\n",
        "silence": b"",
    }

    def drip(handler):
        handler.wfile.write(starts[where])
        for _ in range(1200):  # a minute; the machine may be slow, but not that slow
            time.sleep(0.05)
            if where != "silence":
                handler.wfile.write(b"H")
                handler.wfile.flush()

    web.pages["/x"] = drip
    started = time.monotonic()
    assert web.fetch("/x", timeout_s=0.4) == (None, "timeout")
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("page", "status"),
    [
        (answer(b"", 404), "http 404"),
        (answer(b"", 204), "http 204"),
        (answer(b""), "empty"),
        (answer(b"x" * 10, Content_Length="20"), "cut short"),
        (answer(Content_Encoding="gzip"), "compressed body"),
        (answer(X_Robots_Tag="img2dataset: NoAI, nofollow"), "opted out"),
        (lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n"), "bad answer"),
        (lambda handler: None, "connection"),
    ],
)
def test_answers_without_an_image(web, page, status):
    web.pages["/x"] = page
    assert web.fetch("/x") == (None, status)


def test_nobody_listens():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with serve() as web:
            web.port = port
            assert web.fetch("/x") == (None, "connection")


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate of img.test: (file with certificate and key)."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "img.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("img.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "server.pem"
    path.write_bytes(private + made.public_bytes(pem))
    return path


def test_a_pause_does_not_count(monkeypatch):
    now = [5.0]
    monkeypatch.setattr(download_http, "time", SimpleNamespace(monotonic=lambda: now[0]))
    clock = Clock(1.0, threading.Event())
    with clock.paused():
        now[0] += 3.0
    assert clock.remaining_s() == 1.0
    now[0] += 0.75
    assert clock.remaining_s() == 0.25
    now[0] += 0.25
    with pytest.raises(DownloadError, match="timeout"):
        clock.remaining_s()


def test_tls_checks_the_name_at_the_pinned_address(certificate):
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate)
    names = []
    served.sni_callback = lambda sock, name, context: names.append(name)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with serve(served) as web:
        web.pages["/x"] = answer()
        downloader = web.downloader(context=trusting)
        assert downloader.fetch(f"https://img.test:{web.port}/x") == (IMAGE, "success")
        assert web.seen == [("/x", f"img.test:{web.port}")]
        assert downloader.fetch(f"https://other.test:{web.port}/x") == (None, "tls")
        assert web.downloader().fetch(f"https://img.test:{web.port}/x") == (None, "tls")
        assert names[:2] == ["img.test", "other.test"]
