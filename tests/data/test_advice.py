"""Where no image is left, the advice is about what took most of them."""

from collections import Counter

import pytest

from distillery.data.dedupe.advice import advice


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        ({"resolution": 5, "caption_empty": 1}, "loosen that filter"),
        ({"resolution": 1, "caption_empty": 5}, "metadata.csv with file_name,text"),
        ({"unreadable": 5}, "not the ones that metadata.csv or the shards name"),
        ({}, "loosen that filter"),
    ],
)
def test_the_advice_fits_the_reason(reasons: dict, said: str) -> None:
    assert said in advice(Counter(reasons))
