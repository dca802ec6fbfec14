"""The Kronecker adapter as a PEFT method: its configuration, its tuner and its registration.

In: any model and a `KroneckerConfig`. Out: the model with its target layers wrapped, through
`peft.get_peft_model`, `PeftModel.from_pretrained` or `peft.inject_adapter_in_model`. A low-rank
layer of this project is one target; its two factors are never adapted on their own.
"""

import logging
import math
from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig, PeftType
from peft.tuners.tuners_utils import (
    BaseTuner,
    BaseTunerLayer,
    _maybe_include_all_linear_layers,
)
from peft.utils import (
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULT_TARGETS,
)
from peft.utils import register_peft_method
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.models.kronecker.layers import KroneckerLayer, kronecker_layer
from distillery.models.kronecker.targets import fits, inner_names, is_low_rank, listed
from distillery.models.layers import LowRankLinear

logger = logging.getLogger("distillery.models.kronecker")

NAME = "kronecker"


def register() -> None:
    """Make the method known to PEFT; called on import, harmless when repeated.

    `peft.register_peft_method` takes only members of `peft.PeftType`, an enumeration that is closed
    to subclasses, so the member is added first. It is a `str` as the others are, equal to
    "KRONECKER", and is found by name, by value and in iteration.
    """
    value = NAME.upper()
    if value in PeftType.__members__:
        return
    member = str.__new__(PeftType, value)
    member._name_ = member._value_ = value
    type.__setattr__(PeftType, value, member)
    PeftType._member_names_.append(value)
    PeftType._member_map_[value] = PeftType._value2member_map_[value] = member
    register_peft_method(name=NAME, config_cls=KroneckerConfig, model_cls=KroneckerModel)


@dataclass
class KroneckerConfig(PeftConfig):
    """Settings of `dW = alpha / r * sum_{i=1..n} A_i (x) (u_i v_i)`.

    Raises DistilleryError for a value outside its range.
    """

    n: int = 4
    """Number of terms, and size of the square A_i; must divide `out` and `in * kh * kw`."""
    r: int = 8
    """Rank of each product u_i v_i."""
    alpha: float | None = None
    """The update is scaled by alpha / r; None: alpha = r, a scale of 1."""
    share_A: bool = True  # noqa: N815
    """One set of A_i for all layers, instead of one per layer."""
    zero: str = "v"
    """The factor that starts at zero, so that the update does: `v`, `u` or `A`."""
    indivisible: str = "error"
    """For layers that n does not divide: `error`, `skip` them, or `lora`: a plain u v of rank r
    (there `zero: A` means v, as there is no A)."""
    target_modules: list[str] | str | None = field(default=None)
    """Names or endings of names of layers, a regular expression of full names, or `all-linear`."""
    exclude_modules: list[str] | str | None = field(default=None)
    """Names, endings or a regular expression of layers to leave out."""
    modules_to_save: list[str] | None = field(default=None)
    """Other modules that train in full and are saved with the adapter."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType[NAME.upper()]
        for name in ("n", "r"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise DistilleryError(f"{name}: {value!r} is not a whole number from 1 up")
        self.alpha = self.r if self.alpha is None else self.alpha
        if isinstance(self.alpha, bool) or not math.isfinite(self.alpha):
            raise DistilleryError(f"alpha: {self.alpha!r} is not a finite number")
        for name, choices in (("zero", "v u A"), ("indivisible", "error skip lora")):
            if getattr(self, name) not in choices.split():
                given = getattr(self, name)
                raise DistilleryError(f"{name}: {given!r} is not one of {choices}")

    def to_dict(self) -> dict:
        """The fields, sets as sorted lists: equal settings give equal files."""
        return {k: sorted(v) if isinstance(v, set) else v for k, v in super().to_dict().items()}


class KroneckerModel(BaseTuner):
    """Wraps the target layers of a model in `KroneckerLayer`s; made by PEFT."""

    prefix = f"{NAME}_"
    tuner_layer_cls = KroneckerLayer
    target_module_mapping = DEFAULT_TARGETS
    _left_out: frozenset[str] = frozenset()

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any):
        """As PEFT's, then log the number of adapted layers.

        Raises DistilleryError before anything changes if no layer matches, if a target is of an
        unsupported kind, or by `indivisible`.
        """
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        layers = [
            m
            for m in model.modules()
            if isinstance(m, KroneckerLayer) and adapter_name in m.kronecker_u
        ]
        num_plain = sum(layer.a_owner[adapter_name] is None for layer in layers)
        # A warning, because that level is shown where nobody has set logging up; models without
        # weights are only counted, several at a time.
        is_counted = next(model.parameters()).is_meta
        logger.log(
            logging.DEBUG if is_counted else logging.WARNING,
            "Kronecker adapter %r: %d layers adapted%s",
            adapter_name,
            len(layers),
            f", {num_plain} of them by plain LoRA" if num_plain else "",
        )

    def _prepare_adapter_config(self, peft_config: KroneckerConfig, model_config: dict):
        peft_config = super()._prepare_adapter_config(peft_config, model_config)
        targets = peft_config.target_modules
        if isinstance(targets, str) and targets.lower() == "all-linear":
            peft_config = _maybe_include_all_linear_layers(peft_config, self.model)
            peft_config.target_modules |= {
                name for name, m in self.model.named_modules() if isinstance(m, LowRankLinear)
            }
        return peft_config

    def _prepare_model(self, peft_config: KroneckerConfig, model: nn.Module) -> None:
        self._left_out = inner_names(model)
        targets = {
            name: module
            for name, module in model.named_modules()
            if name and self._check_target_module_exists(peft_config, name)
        }
        unfit = [name for name, layer in targets.items() if not fits(name, layer, peft_config)]
        if (len(unfit) == len(targets) and peft_config.indivisible == "skip") or not targets:
            raise DistilleryError(
                f"target_modules: none of {listed(peft_config.target_modules)} is a layer that can "
                f"be adapted with n = {peft_config.n}; name Linear or Conv2d layers of this model"
            )
        if peft_config.indivisible == "skip":
            self._left_out |= set(unfit)
            if unfit:
                logger.warning("n = %d divides not: %s skipped", peft_config.n, ", ".join(unfit))

    def _check_target_module_exists(self, peft_config: KroneckerConfig, key: str):
        return key not in self._left_out and super()._check_target_module_exists(peft_config, key)

    def _create_and_replace(
        self,
        peft_config: KroneckerConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        owners = self.__dict__.setdefault("_a_owners", {})
        wrapped = isinstance(target, KroneckerLayer)
        layer = target if wrapped else kronecker_layer(target)
        layer.update_layer(adapter_name, peft_config, owners.get(adapter_name))
        if peft_config.share_A and layer.a_owner[adapter_name] is not None:
            owners[adapter_name] = layer.a_owner[adapter_name]
        if not wrapped:
            layer.set_adapter(self.active_adapters)
            self._replace_module(parent, target_name, layer, target)
        if adapter_name not in self.active_adapters:
            layer.set_requires_grad(adapter_name, False)

    def _replace_module(self, parent, child_name, new_module, child) -> None:
        if isinstance(new_module, BaseTunerLayer):
            super()._replace_module(parent, child_name, new_module, child)
        else:
            # PEFT's copies `child.weight`, which a low-rank layer has not.
            setattr(parent, child_name, new_module)

    def delete_adapter(self, adapter_name: str) -> None:
        super().delete_adapter(adapter_name)
        self.__dict__.get("_a_owners", {}).pop(adapter_name, None)

    def merge_adapter(
        self, adapter_names: list[str] | None = None, safe_merge: bool = False
    ) -> None:
        """Merge in place. DistilleryError, before any change, if a low-rank layer is adapted."""
        for name, module in self.model.named_modules():
            if isinstance(module, KroneckerLayer) and is_low_rank(module):
                raise DistilleryError(
                    f"{name}: a Kronecker update cannot be merged into a low-rank layer in place; "
                    "call merge_and_unload(), which makes the layer dense"
                )
        super().merge_adapter(adapter_names, safe_merge)

    def merge_and_unload(self, *args: Any, **kwargs: Any) -> nn.Module:
        """The model with the updates in its weights. Adapted low-rank layers become dense ones, and
        leave the `ranks` in the model's config, so that it still saves and loads."""
        dense = {n for n, m in self.model.named_modules() if is_low_rank(m)}
        model = super().merge_and_unload(*args, **kwargs)
        ranks = getattr(getattr(model, "config", None), "ranks", None)
        if dense and ranks:
            kept = {name: rank for name, rank in ranks.items() if name not in dense}
            model.register_to_config(ranks=kept)
        return model
