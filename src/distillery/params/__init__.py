"""params.yaml: typed, complete and checked before anything heavy runs.

One module a section, `base` what they share, `model` all of them, `checks` what sections need of
one another, `load` reading with file:line errors, `overrides` what `--configfile` and `--config`
change.
"""

from distillery.params.load import load_params
from distillery.params.model import Params, select
from distillery.params.read import read_values

__computes__ = False  # values are recorded by key

__all__ = ["Params", "load_params", "read_values", "select"]
