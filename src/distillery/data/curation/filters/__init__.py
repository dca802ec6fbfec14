"""Curation filters: each looks at one candidate and keeps it, or says why not.

In: the values of `curate` in the params. Out: the filters in the order they run. The first refusal
counts, so the funnel names one reason per row: blocked first, then the image, then the scores, then
the caption. A new filter is a file here, its class in `FILTERS`, and its keys in params.yaml.
Duplicates are resolved over all parts, by `dedupe`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from distillery.data.curation.filters.aspect import Aspect
from distillery.data.curation.filters.base import Candidate, Filter
from distillery.data.curation.filters.blocklist import Blocklist
from distillery.data.curation.filters.caption_empty import CaptionEmpty
from distillery.data.curation.filters.caption_long import CaptionLong
from distillery.data.curation.filters.caption_short import CaptionShort
from distillery.data.curation.filters.caption_spam import CaptionSpam
from distillery.data.curation.filters.resolution import Resolution
from distillery.data.curation.filters.scores import (
    Aesthetic,
    Scored,
    Similarity,
    Unsafe,
    Watermark,
)
from distillery.data.curation.filters.stock_host import StockHost

FILTERS: tuple[type[Filter], ...] = (
    Blocklist,
    Resolution,
    Aspect,
    Unsafe,
    Watermark,
    Aesthetic,
    Similarity,
    StockHost,
    CaptionEmpty,
    CaptionLong,
    CaptionSpam,
    CaptionShort,
)
# Those that judge by URL and scores alone, and so may run before a list is downloaded.
COLUMN_FILTERS = tuple(rule for rule in FILTERS if rule.condition is not Filter.condition)


def filter_params(rules: Sequence[type[Filter]] = FILTERS) -> dict[str, Any]:
    """{key: annotated type} of all filters: the section `curate` of the params."""
    return {key: kind for rule in rules for key, kind in rule.params().items()}


def build_filters(rules: Sequence[type[Filter]] = FILTERS, /, **settings: Any) -> list[Filter]:
    """The filters in the order they run; a setting of None leaves its filter out.

    `settings` has a value for every key of `filter_params(rules)`.
    """
    chosen = [(rule, {key: settings[key] for key in rule.params()}) for rule in rules]
    return [rule(**values) for rule, values in chosen if None not in values.values()]


def score_keys() -> dict[str, str]:
    """{score: key of the filter on it}."""
    return {rule.score: next(iter(rule.params())) for rule in FILTERS if issubclass(rule, Scored)}


def first_rejection(row: Candidate, filters: Iterable[Filter]) -> tuple[str, str] | None:
    """(reason, detail) of the first filter that refuses the row, or None."""
    for rule in filters:
        if (detail := rule.reject(row)) is not None:
            return rule.reason, detail
    return None
