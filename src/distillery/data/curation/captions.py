"""Caption filters: empty, too long, spam, too short.

In: anything with a `caption` of one line. Out: None to keep, else why not. The spam rules are a
few of those LAION-style captions call for; they are rules, not a classifier.
"""

import re
from collections import Counter
from typing import Protocol

_PHRASES = re.compile(
    r"https?://|www\.|\b(?:buy|shop|order) (?:now|online|today)\b|\bclick (?:here|to)\b"
    r"|\bfree (?:shipping|download|delivery|gift)\b|\blimited (?:time )?offer\b|\bsubscribe\b"
    r"|\badd to (?:cart|basket)\b|\b(?:lowest|best) price|\b\d+ ?% off\b|\bviagra\b|\bcasino\b",
    re.IGNORECASE,
)
_FILE_NAME = re.compile(
    r"[\w\-. ]+\.(?:jpe?g|png|gif|webp|bmp|tiff?)|(?:IMG|DSCN?)[_-]?\d+", re.IGNORECASE
)
_MIN_LETTER_SHARE = 0.5
_MIN_DISTINCT_SHARE = 0.4
_MIN_WORDS_FOR_REPETITION = 6


class Captioned(Protocol):
    """A row with a caption."""

    caption: str


class CaptionEmpty:
    """There is no caption."""

    reason = "caption_empty"

    def __call__(self, row: Captioned) -> str | None:
        return None if row.caption.strip() else "no text"


class CaptionLong:
    """The caption has too many characters."""

    reason = "caption_long"

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars

    def __call__(self, row: Captioned) -> str | None:
        length = len(row.caption)
        return f"{length} characters > {self._max_chars}" if length > self._max_chars else None


class CaptionShort:
    """The caption has too few words."""

    reason = "caption_short"

    def __init__(self, min_words: int) -> None:
        self._min_words = min_words

    def __call__(self, row: Captioned) -> str | None:
        num_words = len(re.findall(r"\w+", row.caption))
        return f"{num_words} words < {self._min_words}" if num_words < self._min_words else None


class CaptionSpam:
    """An advertising phrase or URL, a bare file name, mostly no letters, or few words repeated."""

    reason = "caption_spam"

    def __call__(self, row: Captioned) -> str | None:
        caption = row.caption
        if found := _PHRASES.search(caption):
            return f"advertising: {found.group()!r}"
        if _FILE_NAME.fullmatch(caption):
            return "a file name"
        visible = [c for c in caption if not c.isspace()]
        if sum(c.isalpha() for c in visible) < _MIN_LETTER_SHARE * len(visible):
            return "mostly no letters"
        words = re.findall(r"\w+", caption.lower())
        if len(words) >= _MIN_WORDS_FOR_REPETITION:
            word, count = Counter(words).most_common(1)[0]
            if len(set(words)) < _MIN_DISTINCT_SHARE * len(words):
                return f"repeats {word!r} {count} times"
        return None
