"""A params file with other values in the same text."""

from pathlib import Path

import pytest
import yaml

from distillery.params.rewrite import rewrite

ROOT = Path(__file__).resolve().parents[2]
TEXT = """# Head.

seed: 0      # of the data
path: null   # a folder
sizes: {a: 1, b: 2.0}

section:
  whole: false
  # about variants
  variants:
    one: {steps: 2.0e-3}  # kept
    two: {steps: 3}

  none: {}   # by name
last: [1, 2]
"""


def _changed(**values: object) -> str:
    wanted = {**yaml.safe_load(TEXT), **values}
    text = rewrite(TEXT, wanted)
    assert yaml.safe_load(text) == wanted
    return text


def test_equal_values_leave_every_byte() -> None:
    assert _changed() == TEXT
    shipped = (ROOT / "params.yaml").read_text()
    assert rewrite(shipped, yaml.safe_load(shipped)) == shipped


@pytest.mark.parametrize(
    ("values", "old", "new"),
    [
        ({"seed": 12}, "seed: 0      #", "seed: 12     #"),
        ({"path": "some/where/far"}, "path: null   #", "path: some/where/far #"),
        ({"sizes": {"a": 1, "b": 3.0}}, "b: 2.0", "b: 3.0"),
        ({"sizes": {"a": True, "b": 2.0}}, "a: 1,", "a: true,"),
        ({"last": []}, "[1, 2]", "[]"),
        ({"path": "2e-3"}, "null   #", "2e-3   #"),
    ],
)
def test_only_the_value_changes(values: dict, old: str, new: str) -> None:
    assert _changed(**values) == TEXT.replace(old, new)


def test_entries_that_stay_keep_their_lines() -> None:
    section = yaml.safe_load(TEXT)["section"]
    variants = {"three": {"steps": 1}, "one": {"steps": 0.002}}
    text = _changed(section={**section, "variants": variants})
    old = TEXT[TEXT.index("    one:") : TEXT.index("\n\n  none")]
    assert text == TEXT.replace(old, "    three: {steps: 1}\n    one: {steps: 2.0e-3}  # kept")


def test_a_block_may_become_nothing_and_nothing_a_mapping() -> None:
    section = {"whole": True, "variants": {}, "none": {"canny": "a/b"}}
    text = _changed(section=section)
    assert "  variants: {}\n\n  none: {canny: a/b} # by name\n" in text
