"""Curation filters: each looks at one candidate and returns None to keep it, or why not.

In: a `Candidate`. Out: None, or a detail such as "31 px < 48 px", filed under the filter's
`reason`. They run in the order of `build_filters` and the first refusal counts, so the funnel
names one reason per row: blocked first, then the image, then the scores, then the caption.
Duplicates are resolved over all parts, by `dedupe`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from distillery.core.errors import DistilleryError
from distillery.data.curation.captions import CaptionEmpty, CaptionLong, CaptionShort, CaptionSpam

SCORES = ("punsafe", "pwatermark", "aesthetic", "similarity")


@dataclass(frozen=True)
class Candidate:
    """A decoded row. Scores are None where the source has no such column."""

    width_px: int
    height_px: int
    caption: str
    url: str | None
    sha256: str
    md5: str
    punsafe: float | None = None
    pwatermark: float | None = None
    aesthetic: float | None = None
    similarity: float | None = None


class Filter(Protocol):
    """What `build_filters` returns."""

    reason: str

    def __call__(self, row: Candidate) -> str | None:
        """None to keep the row, else the detail of its rejection."""


class Blocklist:
    """URL, md5 or sha256 stands in one of the user's lists."""

    reason = "blocklist"

    def __init__(self, entries: Iterable[str]) -> None:
        self._entries = frozenset(entries)

    def __call__(self, row: Candidate) -> str | None:
        names = {"url": row.url, "md5": row.md5, "sha256": row.sha256}
        return next((name for name, value in names.items() if value in self._entries), None)


class Resolution:
    """The shorter side is too short, or the longer one too long."""

    reason = "resolution"

    def __init__(self, min_side_px: int, max_side_px: int) -> None:
        self._min_side_px, self._max_side_px = min_side_px, max_side_px

    def __call__(self, row: Candidate) -> str | None:
        shorter, longer = sorted((row.width_px, row.height_px))
        if shorter < self._min_side_px:
            return f"{shorter} px < {self._min_side_px} px"
        return f"{longer} px > {self._max_side_px} px" if longer > self._max_side_px else None


class Aspect:
    """The longer side is too many times the shorter one."""

    reason = "aspect"

    def __init__(self, max_aspect: float) -> None:
        self._max_aspect = max_aspect

    def __call__(self, row: Candidate) -> str | None:
        shorter, longer = sorted((row.width_px, row.height_px))
        aspect = longer / shorter
        return f"{aspect:.2f} > {self._max_aspect:g}" if aspect > self._max_aspect else None


class ScoreAbove:
    """A score is higher than allowed; a row without it passes."""

    def __init__(self, column: str, maximum: float) -> None:
        self.reason, self._maximum = column, maximum

    def __call__(self, row: Candidate) -> str | None:
        score = getattr(row, self.reason)
        refused = score is not None and score > self._maximum
        return f"{score:g} > {self._maximum:g}" if refused else None


class ScoreBelow:
    """A score is lower than asked for; a row without it passes."""

    def __init__(self, column: str, minimum: float) -> None:
        self.reason, self._minimum = column, minimum

    def __call__(self, row: Candidate) -> str | None:
        score = getattr(row, self.reason)
        refused = score is not None and score < self._minimum
        return f"{score:g} < {self._minimum:g}" if refused else None


class StockHost:
    """The URL is on a stock-photo host or below it; such images carry watermarks."""

    reason = "stock_host"

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = tuple(host.lower() for host in hosts)

    def __call__(self, row: Candidate) -> str | None:
        host = _host(row.url or "")
        return next((h for h in self._hosts if host == h or host.endswith(f".{h}")), None)


def _host(url: str) -> str:
    """Lower-case host of a URL, also of one without scheme; empty where there is none."""
    try:
        return urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:
        return ""


def build_filters(
    *,
    min_side_px: int,
    max_side_px: int,
    max_aspect: float,
    max_caption_chars: int,
    min_caption_words: int,
    max_punsafe: float | None,
    max_pwatermark: float | None,
    min_aesthetic: float | None,
    min_similarity: float | None,
    stock_hosts: Sequence[str],
    blocklists: Sequence[str],
) -> list[Filter]:
    """The filters in the order they run; a limit of None leaves its filter out."""
    above = {"punsafe": max_punsafe, "pwatermark": max_pwatermark}
    below = {"aesthetic": min_aesthetic, "similarity": min_similarity}
    return [
        Blocklist(read_blocklists([Path(name) for name in blocklists])),
        Resolution(min_side_px, max_side_px),
        Aspect(max_aspect),
        *(ScoreAbove(name, limit) for name, limit in above.items() if limit is not None),
        *(ScoreBelow(name, limit) for name, limit in below.items() if limit is not None),
        StockHost(stock_hosts),
        CaptionEmpty(),
        CaptionLong(max_caption_chars),
        CaptionSpam(),
        CaptionShort(min_caption_words),
    ]


def read_blocklists(paths: Iterable[Path]) -> set[str]:
    """Entries of text files with one URL, md5 or sha256 a line; `#` starts a comment line."""
    entries: set[str] = set()
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DistilleryError(
                f"{path}: not readable as a text file ({error}); correct curate.blocklists"
            ) from None
        stripped = (line.strip() for line in lines)
        entries.update(_entry(line) for line in stripped if line and not line.startswith("#"))
    return entries


def _entry(line: str) -> str:
    """Hashes are compared in lower case, URLs as they are."""
    is_hash = re.fullmatch(r"(?:[0-9a-fA-F]{32}){1,2}", line)
    return line.lower() if is_hash else line


def first_rejection(row: Candidate, filters: Iterable[Filter]) -> tuple[str, str] | None:
    """(reason, detail) of the first filter that refuses the row, or None."""
    for rule in filters:
        if (detail := rule(row)) is not None:
            return rule.reason, detail
    return None
