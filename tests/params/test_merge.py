"""Values laid over others: sections key by key, what has the user's own keys as a whole."""

from typing import Any

import pytest

from distillery.params import Params
from distillery.params.merge import lay_over, typed


@pytest.mark.parametrize(
    ("base", "given", "expected"),
    [
        (1, "2", 2),
        (1.0, "1e-3", 0.001),
        ("no", "yes", "yes"),
        (None, "data/photos", "data/photos"),
        (None, "null", None),
        ([0, 1], ["0", "1", "2"], [0, 1, 2]),
        (["a"], ["b", "1"], ["b", "1"]),
        ({"a": 1}, "{a: 2}", {"a": 2}),
        ({"a": 1, "b": 2}, {"b": "3"}, {"b": 3}),
    ],
)
def test_text_of_a_command_line(base: object, given: object, expected: object) -> None:
    assert typed(base, given) == expected


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
