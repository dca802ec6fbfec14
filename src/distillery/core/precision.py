"""Number formats: their names in params.yaml, and what the libraries call them.

`fp32`, `bf16` and `fp16` everywhere a user writes one: words that no YAML tool takes for a truth
value, unlike accelerate's `no`. Other libraries' words are read with a hint. This is the one place
that translates them.
"""

import functools
import sys
from typing import TYPE_CHECKING, Any

from distillery.core.errors import DistilleryError

if TYPE_CHECKING:
    import torch

NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_OTHER_WORDS = {"no": "fp32", **{word: name for name, word in NAMES.items()}}


def of_other_word(value: Any) -> str | None:
    """The name of what accelerate or torch call otherwise; None for any other value.

    False is `no`, as YAML 1.1 reads it.
    """
    word = "no" if value is False else value
    return _OTHER_WORDS.get(word) if isinstance(word, str) else None


def read_precision(word: str, where: str) -> str:
    """`fp32`, `bf16` or `fp16`, said `where`; other libraries' words with a hint.

    Raises DistilleryError for any other word.
    """
    if name := of_other_word(word):
        hint(where, word, name)
        return name
    if word not in NAMES:
        raise DistilleryError(f"{where} {word}: use one of {', '.join(NAMES)}")
    return word


@functools.cache
def hint(where: str, word: Any, name: str) -> None:
    """Say once what a word of other libraries is read as."""
    shown = "no, or false," if word is False else word
    print(f"{where}: {shown} is read as {name}; write that", file=sys.stderr)


def torch_dtype(precision: str) -> "torch.dtype":
    """The torch type of `fp32`, `bf16` or `fp16`."""
    import torch

    return getattr(torch, NAMES[precision])


def autocast_name(precision: str) -> str:
    """What accelerate calls it: `no` is float32 without mixed precision."""
    return "no" if precision == "fp32" else precision
