"""The Kronecker adapter, a PEFT method for fine-tuning Linear and Conv2d layers of any model.

In: `peft.get_peft_model(model, KroneckerConfig(...))`. Out: a `PeftModel` that trains, saves,
loads, merges and switches adapters as with PEFT's own methods. Importing this module registers the
method with PEFT.
"""

from distillery.models.kronecker.layers import KroneckerConv2d, KroneckerLayer, KroneckerLinear
from distillery.models.kronecker.method import KroneckerConfig, KroneckerModel, register

__all__ = [
    "KroneckerConfig",
    "KroneckerConv2d",
    "KroneckerLayer",
    "KroneckerLinear",
    "KroneckerModel",
    "register",
]

register()
