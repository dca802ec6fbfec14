"""The filter on captions that are no description.

The rules are a few of those that LAION-style captions call for; they are rules, not a classifier.
"""

import re
from collections import Counter
from dataclasses import dataclass

from distillery.data.curation.filters.base import Candidate, Filter
from distillery.data.curation.filters.words import list_words

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


@dataclass(frozen=True)
class CaptionSpam(Filter):
    """An advertising phrase or URL, a bare file name, mostly no letters, or few words repeated."""

    reason = "caption_spam"

    def reject(self, row: Candidate) -> str | None:
        if phrase := _PHRASES.search(row.caption):
            return f"advertising: {phrase.group()!r}"
        if _FILE_NAME.fullmatch(row.caption):
            return "a file name"
        return _lacks_letters(row.caption) or _repeats(row.caption)


def _lacks_letters(caption: str) -> str | None:
    visible = [c for c in caption if not c.isspace()]
    num_letters = sum(c.isalpha() for c in visible)
    return "mostly no letters" if num_letters < _MIN_LETTER_SHARE * len(visible) else None


def _repeats(caption: str) -> str | None:
    words = list_words(caption.lower())
    if len(words) < _MIN_WORDS_FOR_REPETITION:
        return None
    word, count = Counter(words).most_common(1)[0]
    few = len(set(words)) < _MIN_DISTINCT_SHARE * len(words)
    return f"repeats {word!r} {count} times" if few else None
