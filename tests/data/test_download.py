import threading
import time

import pytest
from web_helpers import IMAGE, answer, redirect, serve

from distillery.data.ingest.download import Downloader


@pytest.fixture
def web():
    with serve() as running:
        yield running


def test_bytes_come_as_they_are_and_the_host_keeps_its_name(web):
    web.pages["/a%20b.jpg?q=1"] = answer()
    assert web.fetch("/a b.jpg?q=1") == (IMAGE, "success")
    assert web.seen == [("/a%20b.jpg?q=1", f"img.test:{web.port}")]
    assert web.asked == ["img.test"]


def test_the_product_refuses_this_machine(web):
    web.pages["/x"] = answer()
    downloader = Downloader(timeout_s=5.0, max_bytes=10, num_retries=3, max_per_host=1)
    for host in ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "0x7f.1", "127.1"):
        assert downloader.fetch(web.url("/x", host)) == (None, "refused address")
    assert web.seen == []


def test_one_private_address_among_public_ones_is_enough_to_refuse(web):
    downloader = web.downloader(
        resolve=lambda *_: ["127.0.0.1", "10.0.0.1"], is_allowed=lambda ip: ip == "127.0.0.1"
    )
    assert downloader.fetch(web.url("/x")) == (None, "refused address")
    assert web.seen == []


def test_a_name_that_changes_its_address_after_the_check_gains_nothing(web):
    web.pages["/x"] = answer()
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    checked = []

    def check(address):
        checked.append(address)
        return True

    downloader = web.downloader(resolve=lambda *_: next(answers), is_allowed=check)
    assert downloader.fetch(web.url("/x"))[0] == IMAGE
    assert checked == ["127.0.0.1"]
    assert next(answers) == ["127.0.0.2"]  # was never asked for


def test_proxies_of_the_environment_are_not_used(web, monkeypatch):
    web.pages["/x"] = answer()
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert web.fetch("/x") == (IMAGE, "success")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(web, status):
    web.pages["/x"] = redirect("/é".encode().decode("latin-1"), status)
    web.pages["/%C3%A9"] = redirect(web.url("/z", "other.test"), status)
    web.pages["/z"] = answer()
    assert web.fetch("/x")[0] == IMAGE
    assert web.asked == ["img.test", "img.test", "other.test"]
    assert web.seen[-1] == ("/z", f"other.test:{web.port}")


def test_every_hop_is_checked(web):
    web.pages["/x"] = redirect(web.url("/secret", "inner.test"))
    web.pages["/secret"] = answer()
    addresses = {"img.test": "127.0.0.1", "inner.test": "127.0.0.2"}
    downloader = web.downloader(
        resolve=lambda host, *_: [addresses[host]], is_allowed=lambda ip: ip == "127.0.0.1"
    )
    assert downloader.fetch(web.url("/x")) == (None, "refused address")
    assert [path for path, _ in web.seen] == ["/x"]


@pytest.mark.parametrize(
    ("location", "status"),
    [
        ("file:///etc/passwd", "refused scheme"),
        ("ftp://img.test/x", "refused scheme"),
        ("http://user:secret@img.test/", "credentials in url"),
        ("http://[", "bad url"),
        ("http://\xe9\x80.test", "bad url"),
    ],
)
def test_redirects_to_what_a_list_may_not_name(web, location, status):
    web.pages["/x"] = redirect(location)
    assert web.fetch("/x") == (None, status)


def test_redirects_end(web):
    web.pages["/x"] = redirect("/x")
    assert web.fetch("/x") == (None, "too many redirects")
    assert len(web.seen) == 6
    web.pages["/y"] = answer(b"", 302)
    assert web.fetch("/y") == (None, "bad redirect")


def test_the_clock_runs_over_redirects(web):
    def slow(handler):
        time.sleep(0.15)
        redirect("/x")(handler)

    web.pages["/x"] = slow
    assert web.fetch("/x", timeout_s=0.4) == (None, "timeout")
    assert len(web.seen) < 5


@pytest.mark.parametrize(("status", "num_tries"), [(503, 3), (429, 3), (404, 1), (403, 1)])
def test_retries(web, status, num_tries):
    web.pages["/x"] = answer(b"", status)
    assert web.fetch("/x", num_retries=2) == (None, f"http {status}")
    assert len(web.seen) == num_tries


def test_a_retry_that_succeeds(web):
    def recovers(handler):
        (answer() if len(web.seen) > 1 else answer(b"", 500))(handler)

    web.pages["/x"] = recovers
    assert web.fetch("/x", num_retries=1) == (IMAGE, "success")


def test_an_error_nobody_thought_of_costs_one_url(web):
    def broken(*_):
        raise KeyError("unheard of")

    assert web.fetch("/x", resolve=broken) == (None, "unexpected KeyError")


def test_a_host_gets_few_requests_at_a_time(web):
    running, most, lock = set(), [], threading.Lock()

    def page(handler):
        with lock:
            running.add(handler)
            most.append(len(running))
        time.sleep(0.05)
        with lock:
            running.remove(handler)
        answer()(handler)

    web.pages["/x"] = page
    downloader = web.downloader(max_per_host=2)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(downloader.fetch(web.url("/x"))))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(IMAGE, "success")] * 16
    assert max(most) <= 2
