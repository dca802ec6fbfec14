"""One training iteration: what is trained on what, and what else lies in memory.

In: modules on any device, an objective. Out: an `Iteration`, whose frozen weights can be narrowed
and whose activations can be recomputed. Which iterations there are is in `training`.
"""

from dataclasses import dataclass, field

import torch
from diffusers import ModelMixin
from torch import nn

from distillery.diffusion.objectives import Objective
from distillery.models.checkpointing import recompute_activations
from distillery.train.rounding import narrow


@dataclass(frozen=True)
class Iteration:
    """`model` is trained; `frozen` it runs through or is held; `teacher` only the teacher needs."""

    model: nn.Module
    objective: Objective
    frozen: dict[str, nn.Module] = field(default_factory=dict)
    teacher: dict[str, nn.Module] = field(default_factory=dict)
    role: str = "unet"

    @property
    def held(self) -> dict[str, nn.Module]:
        """Everything in memory but the teacher, by the names that `count_parameters` knows."""
        return {self.role: self.model, **self.frozen}

    def checkpoint(self) -> None:
        """Recompute activations, of what is trained and of what its gradients run through."""
        for module in (self.model, *self.frozen.values()):
            if isinstance(module, ModelMixin) and module._supports_gradient_checkpointing:
                recompute_activations(module)

    def narrow(self, dtype: torch.dtype) -> None:
        """Weights that stay as they are in a narrower dtype, as the stages load them."""
        for module in (*self.frozen.values(), *self.teacher.values()):
            nn.Module.to(module, dtype)  # diffusers' own warns in vain
        if any("lora" in name for name, _ in self.model.named_parameters()):
            for parameter in self.model.parameters():
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)

    def narrow_trained(self) -> None:
        """Trained weights in bfloat16, as `training.weights` has them."""
        narrow(self.trained())

    def trained(self) -> list[nn.Parameter]:
        """What the optimiser gets."""
        return [p for p in self.model.parameters() if p.requires_grad]
