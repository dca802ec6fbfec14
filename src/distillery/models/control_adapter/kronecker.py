"""The Kronecker update of a control adapter's copied encoder, by PEFT.

In: an adapter, the update's settings and the names of layers. Out: the adapter with those layers
wrapped. The arithmetic is `kronecker`'s.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from peft import inject_adapter_in_model
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.models.kronecker import KroneckerConfig

SETTINGS = ("n", "r", "alpha", "share_A", "zero", "indivisible")


def inject_kronecker(
    adapter: nn.Module, settings: Mapping[str, Any], layers: Sequence[str]
) -> None:
    """Wrap `layers` of `adapter` in place; a low-rank layer gets one branch over the whole.

    `settings` are fields of `KroneckerConfig`, others at its defaults.
    Raises DistilleryError for an unknown setting, if n fits no layer, or by `indivisible`.
    """
    known = {field.name for field in dataclasses.fields(KroneckerConfig)} & set(SETTINGS)
    if unknown := sorted(set(settings) - known):
        raise DistilleryError(f"kronecker.{unknown[0]}: unknown; use {', '.join(sorted(known))}")
    inject_adapter_in_model(KroneckerConfig(**settings, target_modules=list(layers)), adapter)
