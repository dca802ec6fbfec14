import threading
import time

import pytest

from distillery.data.ingest.download import rows as download_rows
from distillery.data.ingest.download.rows import DownloadPool
from distillery.data.ingest.readers.urls import UrlRow


class Fake:
    """Answers at once, but for URLs that sleep."""

    def __init__(self):
        self.stop = threading.Event()
        self.asked = []

    def fetch(self, url):
        self.asked.append(url)
        if "slow" in url:
            self.stop.wait(0.3)
        if "stuck" in url:
            self.stop.wait(60)
        return (None, "dns") if "bad" in url else (url.encode(), "success")


def rows(*urls):
    return (UrlRow(str(i), "list", url, f"caption {i}", {"url": url}) for i, url in enumerate(urls))


def test_samples_are_in_order_and_failed_ones_among_them():
    with DownloadPool(Fake(), 4) as pool:
        samples = list(pool.download(rows("slow.test/a.PNG?x=1", "bad.test/b.jpg", "c.test/c.php")))
    assert [s.image for s in samples] == [b"slow.test/a.PNG?x=1", None, b"c.test/c.php"]
    assert [s.suffix for s in samples] == ["png", "", ""]
    assert [s.status for s in samples] == ["success", "failed_to_download: dns", "success"]
    assert [s.caption for s in samples] == ["caption 0", "caption 1", "caption 2"]
    assert samples[1].metadata == {"url": "bad.test/b.jpg"}


def test_a_damaged_row_is_not_requested():
    fake = Fake()
    with DownloadPool(fake, 1) as pool:
        (sample,) = pool.download([UrlRow("0", "list", is_damaged=True)])
    assert (sample.image, sample.status) == (None, "failed_to_download: bad row")
    assert fake.asked == []


def test_rows_are_read_only_as_places_become_free():
    taken = []

    def counted():
        for row in rows(*["slow.test", *["x.test"] * 200]):
            taken.append(row)
            yield row

    with DownloadPool(Fake(), 2) as pool:
        samples = pool.download(counted())
        next(samples)
        assert len(taken) <= 2 * 16 + 1
        assert len(list(samples)) == 200


def test_images_that_wait_are_limited_in_bytes(monkeypatch):
    monkeypatch.setattr(download_rows, "_MAX_HELD_BYTES", 20)
    fake, taken = Fake(), []
    pool = DownloadPool(fake, 4)

    def wait_until_held(num_bytes):
        while pool._num_held_bytes < num_bytes:
            time.sleep(0.001)

    def paced():
        for i, row in enumerate(rows("first.test", *["12345678.test"] * 20)):
            wait_until_held((i - 1) * 13 if i < 4 else 0)
            taken.append(row)
            yield row

    fetch = fake.fetch
    held_by = {"first.test": 2 * 13}  # it is answered once two others wait for it
    fake.fetch = lambda url: (wait_until_held(held_by.get(url, 0)), fetch(url))[1]
    with pool:
        samples = pool.download(paced())
        next(samples)
        assert len(taken) <= 4
        assert len(list(samples)) == 20


def test_leaving_ends_what_is_under_way():
    fake = Fake()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), DownloadPool(fake, 2) as pool:  # noqa: PT012
        samples = pool.download(rows("x.test", *["stuck.test"] * 30))
        next(samples)
        raise KeyboardInterrupt
    assert time.monotonic() - started < 30
    assert len(fake.asked) < 20
