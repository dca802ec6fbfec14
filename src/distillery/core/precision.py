"""Number formats: their names in params.yaml, and what the libraries call them.

`fp32`, `bf16` and `fp16` everywhere a user writes one: words that no YAML tool takes for a truth
value, unlike accelerate's `no`. This is the one place that translates them.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def torch_dtype(precision: str) -> "torch.dtype":
    """The torch type of `fp32`, `bf16` or `fp16`."""
    import torch

    return getattr(torch, NAMES[precision])


def autocast_name(precision: str) -> str:
    """What accelerate calls it: `no` is float32 without mixed precision."""
    return "no" if precision == "fp32" else precision
