"""The section report of params.yaml: the page."""

from distillery.params.base import Frozen, Positive


class Report(Frozen):
    """The page."""

    title: str
    """heading of the page"""
    num_gallery_samples: Positive
    """prompts in the gallery"""
