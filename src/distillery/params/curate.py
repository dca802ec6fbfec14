"""The section curate of params.yaml: the keys that the filters of curation declare."""

from pydantic import create_model

from distillery.data.curation.filters import filter_params
from distillery.params.base import Frozen

Curate = create_model(
    "Curate",
    __base__=Frozen,
    __doc__="Filters; null switches one off. A row without the column passes, and is counted.",
    **filter_params(),
)
