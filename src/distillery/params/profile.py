"""The section profile of params.yaml: latency at the models' own size."""

from distillery.params.base import Frozen, Positive


class Profile(Frozen):
    """Latency at the models' own size."""

    batch_size: Positive
    """Images in one timed evaluation."""
    num_repeats: Positive
    """Timed rounds, of which the median is reported."""
