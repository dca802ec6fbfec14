"""What became of the images, in words.

In: counts of a part, or the funnel of all. Out: `20 in, 18 kept, 2 gone: 2 too_small`.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

__computes__ = False  # text on the terminal


def summary(counts: Mapping[str, Any]) -> str:
    """Of `input`, `kept`, and by reason `rejected` and `failed`; the commonest reason first."""
    gone = Counter(counts["rejected"]) + Counter(counts["failed"])
    reasons = ", ".join(f"{num:,} {reason}" for reason, num in gone.most_common())
    why = f", {gone.total():,} gone: {reasons}" if gone else ""
    return f"{counts['input']:,} in, {counts['kept']:,} kept{why}"
