"""Downloads the rows of a list with a bounded pool of threads, and gives them back in order.

In: `UrlRow`s and a `Downloader`. Out: one `RawSample` per row, in the rows' order; one that failed
has no image and says why in its status, which begins as img2dataset's does. In memory are at most
the images that wait for a slower one before them (256 MiB) and those under way.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePosixPath

from distillery.data.ingest.download import Downloader
from distillery.data.ingest.download.url import DownloadError, parse_url
from distillery.data.ingest.readers.urls import UrlRow
from distillery.data.ingest.sample import FAILED_TO_DOWNLOAD, IMAGE_SUFFIXES, SUCCESS, RawSample

# Rows handed out ahead of the oldest unfinished one, so that a slow server idles no thread.
_AHEAD_PER_THREAD = 16
_MAX_HELD_BYTES = 2**28


class DownloadPool:
    """`with DownloadPool(...) as pool: pool.download(rows)`; leaving ends what is under way."""

    def __init__(self, downloader: Downloader, num_threads: int) -> None:
        self._downloader = downloader
        self._num_ahead = num_threads * _AHEAD_PER_THREAD
        self._num_held_bytes, self._lock = 0, threading.Lock()
        self._executor = ThreadPoolExecutor(num_threads, thread_name_prefix="download")

    def __enter__(self) -> "DownloadPool":
        return self

    def __exit__(self, *_: object) -> None:
        self._downloader.stop.set()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def download(self, rows: Iterable[UrlRow]) -> Iterator[RawSample]:
        """One sample per row, in order. Rows are read as places become free."""
        pending: deque[Future[RawSample]] = deque()
        for row in rows:
            while pending and self._is_full(len(pending)):
                yield self._hand_over(pending)
            pending.append(self._executor.submit(self._load, row))
        while pending:
            yield self._hand_over(pending)

    def _is_full(self, num_pending: int) -> bool:
        return num_pending >= self._num_ahead or self._num_held_bytes > _MAX_HELD_BYTES

    def _load(self, row: UrlRow) -> RawSample:
        sample = _as_sample(row, self._downloader)
        self._hold(len(sample.image or b""))
        return sample

    def _hand_over(self, pending: deque[Future[RawSample]]) -> RawSample:
        sample = pending.popleft().result()
        self._hold(-len(sample.image or b""))
        return sample

    def _hold(self, num_bytes: int) -> None:
        with self._lock:
            self._num_held_bytes += num_bytes


def _as_sample(row: UrlRow, downloader: Downloader) -> RawSample:
    image, status = (None, "bad row") if row.is_damaged else downloader.fetch(row.url)
    return RawSample(
        key=row.key,
        source=row.source,
        image=image,
        suffix=_suffix(row.url) if image else "",
        caption=row.caption,
        metadata=row.metadata,
        status=SUCCESS if image else f"{FAILED_TO_DOWNLOAD}: {status}",
    )


def _suffix(url: object) -> str:
    """The URL's own file suffix where it is an image's; curation looks at the bytes."""
    try:
        path = parse_url(url).path.split("?")[0]
    except DownloadError:
        return ""
    suffix = PurePosixPath(path).suffix.lstrip(".").lower()
    return suffix if suffix in IMAGE_SUFFIXES else ""
