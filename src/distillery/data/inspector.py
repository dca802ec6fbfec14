"""What curation wants to know of images that nobody has checked yet.

In: encoded bytes from anywhere. Out: what is in them (`ImageFacts`), or the reason why they can't
be decoded. Decoding happens in one worker process with a memory limit and a clock, so that a
decompression bomb, a crash of a codec or an endless loop costs one image and never the run.
"""

import contextlib
import multiprocessing
import resource
import signal
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path

import cv2

from distillery.core.errors import DistilleryError
from distillery.data.dedupe.phash import hash_luma, small_luma
from distillery.data.dedupe.windows import sketch
from distillery.data.images import UndecodableError, decode

MEMORY_LIMIT_BYTES = 2**30
TIME_LIMIT_S = 30.0
START_LIMIT_S = 300.0
_OTHERS_END = [-number for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)]


@dataclass(frozen=True)
class ImageFacts:
    """Size as displayed, format, perceptual hash and sketch (`dedupe.windows`) of an image."""

    width_px: int
    height_px: int
    format: str
    phash: str
    sketch: bytes


def inspect_image(data: bytes) -> ImageFacts:
    """Decode in this process and describe; raises `UndecodableError`."""
    pixels, format_name = decode(data, "white")
    height, width = pixels.shape[:2]
    luma = small_luma(pixels)
    return ImageFacts(width, height, format_name, hash_luma(luma), sketch(pixels, luma))


class Inspector:
    """`inspect_image` in a worker process; use as a context manager.

    A result is the facts, or a string: the reason why there are none. The worker is replaced when
    it dies or overruns, so results depend on nothing but the bytes. Costs about 0.1 ms per image
    on top of decoding, and 0.5 s to start.
    """

    def __init__(
        self, *, time_limit_s: float = TIME_LIMIT_S, memory_limit_bytes: int = MEMORY_LIMIT_BYTES
    ) -> None:
        self._time_limit_s = time_limit_s
        self._memory_limit_bytes = memory_limit_bytes
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> "Inspector":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def inspect(self, data: bytes) -> ImageFacts | str:
        """Facts of the image, or why it can't be decoded."""
        if self._process is None:
            self._start()
        try:
            self._pipe.send_bytes(data)
            if self._pipe.poll(self._time_limit_s):
                return self._pipe.recv()
            reason = f"decoding takes more than {self._time_limit_s:g} s"
        except (EOFError, OSError):
            self._require_own_end()
            reason = "the decoder crashed on it"
        self._stop()
        return reason

    def _require_own_end(self) -> None:
        """Raise where others ended the worker: that says nothing of the picture."""
        self._process.join(START_LIMIT_S)
        if self._process.exitcode not in _OTHERS_END:
            return
        self._stop()
        raise DistilleryError(
            "the process that decodes images was killed, as the system does when memory runs out "
            "(dmesg says so); free memory and run again"
        )

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(far_end, self._memory_limit_bytes), daemon=True
        )
        # Ctrl-C goes to all processes of a terminal; this one ends its worker by itself. Python's
        # tracker is started before: its start, with the first process, lets the signal through.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        far_end.close()
        try:
            ready = self._pipe.poll(START_LIMIT_S) and self._pipe.recv() == "ready"
        except EOFError:
            ready = False
        if not ready:
            self._stop()
            raise DistilleryError(
                "the process that decodes images does not start; free memory and run again"
            )

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None


def _serve(pipe: Connection, memory_limit_bytes: int) -> None:
    """The worker's loop: bytes in, facts or a reason out, until the pipe closes."""
    cv2.setNumThreads(1)
    statm = Path("/proc/self/statm")
    own_bytes = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0
    limit_bytes = own_bytes + memory_limit_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            data = pipe.recv_bytes()
            try:
                pipe.send(inspect_image(data))
            except UndecodableError as error:
                pipe.send(str(error))
            except MemoryError:
                pipe.send("needs more memory than the decoder may use")
