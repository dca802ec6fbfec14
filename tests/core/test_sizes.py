"""Bytes as people read them."""

import pytest

from distillery.core.sizes import in_bytes


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 B"), (999, "999 B"), (376_834, "377 kB"), (999_999, "1.00 MB"), (6_019e6, "6.02 GB"),
     (11.6e9, "11.6 GB"), (65_977.6e6, "66.0 GB"), (850e6, "850 MB"), (4e12, "4.00 TB")],
)  # fmt: skip
def test_three_digits_of_the_largest_unit(number: float, said: str) -> None:
    assert in_bytes(number) == said
