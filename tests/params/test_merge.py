"""Values laid over others: sections key by key, what has the user's own keys as a whole."""

from typing import Any

import pytest

from distillery.params import Params
from distillery.params.merge import lay_over, typed

SECTION = {
    "a whole number": ("data", {"resolution_px": "64"}, {"resolution_px": 64}),
    "a number without a dot": ("curate", {"max_aspect": "1e-3"}, {"max_aspect": 0.001}),
    "a name that looks like a date": ("ingest", {"path": "2024-01-15"}, {"path": "2024-01-15"}),
    "a name of digits": ("ingest", {"path": "2024"}, {"path": "2024"}),
    "a commit": ("prepare_teacher", {"revision": "7e10"}, {"revision": "7e10"}),
    "nothing": ("ingest", {"path": "null"}, {"path": None}),
    "a word": ("generate", {"dtype": "no"}, {"dtype": "no"}),
    "a list of numbers": ("data", {"parts": "[0, 1]"}, {"parts": [0, 1]}),
    "a list of names": ("curate", {"blocklists": ["1", "b"]}, {"blocklists": ["1", "b"]}),
    "own keys": ("prepare_teacher", "{sha256: {a: 007}}", {"sha256": {"a": "007"}}),
    "a section": (
        "ingest", "{path: 1_0, scenes: {seed: 1}}", {"path": "1_0", "scenes": {"seed": 1}}
    ),
}  # fmt: skip


@pytest.mark.parametrize(("section", "given", "expected"), SECTION.values(), ids=SECTION)
def test_text_of_a_command_line(section: str, given: object, expected: object) -> None:
    assert typed({section: given}) == {section: expected}


def test_sections_are_merged_key_by_key(default_params: Params) -> None:
    base = default_params.model_dump()
    given = {"ingest": {"scenes": {"seed": 7}}, "cache_teacher": {"generated": None}}
    merged = lay_over(base, given)
    assert merged["ingest"] == {**base["ingest"], "scenes": {**base["ingest"]["scenes"], "seed": 7}}
    assert merged["cache_teacher"] == base["cache_teacher"]


@pytest.mark.parametrize(
    ("section", "key", "entry"),
    [
        ("distill_unet", "variants", {"mine": {"init": "svd", "steps": 3}}),
        ("generate", "whole", {}),
        ("prepare_teacher", "controlnets", {"canny": "a/b"}),
        ("prepare_teacher", "sha256", {"unet/config.json": "0"}),
    ],
)
def test_what_has_own_keys_is_replaced(
    default_params: Params, section: str, key: str, entry: dict[str, Any]
) -> None:
    base = default_params.model_dump()
    merged = lay_over(base, {section: {key: entry}})
    assert merged == {**base, section: {**base[section], key: entry}}


def test_an_entry_is_replaced_as_a_whole_too(default_params: Params) -> None:
    base = default_params.model_dump()
    merged = lay_over(base, {"distill_unet": {"variants": {"elr": {"steps": 1}}}})
    assert merged["distill_unet"]["variants"] == {"elr": {"steps": 1}}
