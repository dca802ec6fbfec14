"""Saving and loading that take no weights for granted.

In: a diffusers model class. Out: the same with a `from_pretrained` that reads safetensors only and
refuses a folder whose tensors are not exactly the model's; diffusers only warns of that. Weights
have a file name that diffusers' own classes do not look for: they would take the config for that of
a plain model and draw at random what they miss. `assign_state` does the same for tensors that are
in memory, `init_arguments` reads a config.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.core.weights import require_matched, require_recorded

# What diffusers calls a variant: `diffusion_pytorch_model.distillery.safetensors`.
WEIGHTS_VARIANT = "distillery"


def load_strictly(
    load: Callable[..., Any], place: str | Path, *, may_hold_more: bool = False, **options: Any
) -> Any:
    """`load(place)`, a `from_pretrained`, from safetensors, with every tensor matched.

    Raises DamagedError where a local folder is not as its manifest has it, and DistilleryError
    naming the first tensors that are missing or, unless it `may_hold_more`, left over.
    """
    if (folder := Path(place) / (options.get("subfolder") or "")).is_dir():
        require_recorded(folder)
    options.update(use_safetensors=True, output_loading_info=True)
    model, info = load(place, **options)
    require_matched(place, info, may_hold_more=may_hold_more)
    return model


class StrictLoading:
    """Mixin for a `ModelMixin`; it goes before it among the base classes."""

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        save_function: Callable | None = None,
        safe_serialization: bool = True,
        variant: str | None = None,
        **kwargs,
    ) -> None:
        """Save as in diffusers, under a name with `WEIGHTS_VARIANT`, behind `variant` if given."""
        super().save_pretrained(
            save_directory,
            is_main_process=is_main_process,
            save_function=save_function,
            safe_serialization=safe_serialization,
            variant=weights_variant(variant),
            **kwargs,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """Load from a folder or the hub as in diffusers, safetensors only, every tensor matched.

        Raises DistilleryError if weights are missing or left over.
        """
        if kwargs.get("use_safetensors") is False:
            raise DistilleryError("use_safetensors=False: only safetensors load; convert the file")
        with_info = kwargs.pop("output_loading_info", False)
        kwargs["variant"] = weights_variant(kwargs.get("variant"))
        load = super().from_pretrained
        model = load_strictly(load, pretrained_model_name_or_path, **kwargs)
        model.loaded()
        none = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}
        return (model, none) if with_info else model

    def loaded(self) -> None:
        """Called when the weights are in place."""


def weights_variant(variant: str | None) -> str:
    """The variant under which weights lie, of a variant as diffusers knows it (`fp16`) or none."""
    return f"{variant}-{WEIGHTS_VARIANT}" if variant else WEIGHTS_VARIANT


def init_arguments(kind: type, config: Mapping[str, Any], *left_out: str) -> dict[str, Any]:
    """The constructor's arguments of a diffusers class in a config, without the class's name."""
    hidden = ("_class_name", *left_out)
    return kind.extract_init_dict({k: v for k, v in config.items() if k not in hidden})[0]


def assign_state(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Give a skeleton the tensors of `state`, which must match exactly; each is a copy."""
    model.load_state_dict({k: v.detach().clone() for k, v in state.items()}, assign=True)
    return model
