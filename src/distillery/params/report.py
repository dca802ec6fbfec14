"""The section report of params.yaml: the page."""

from distillery.params.base import Frozen, Positive


class Report(Frozen):
    """The page."""

    title: str
    """Heading of the page that the report shows."""
    num_gallery_samples: Positive
    """Prompts that are shown in the gallery, for every model."""
