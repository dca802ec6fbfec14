"""Several ControlNets as one, each kind of map with a scale of its own.

In: ControlNets and control adapters, the kinds of maps that each is given, a scale for each kind.
Out: a module that is called as a ControlNet is, with one hint that holds the maps of all kinds. Not
here: reading maps, loading networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distillery.models.student_controlnet.encode_once import answering, encoded_maps


@dataclass(frozen=True)
class Use:
    """A network, the kinds that its hint has in this order, and the scales of those given to it."""

    controlnet: nn.Module
    kinds: Sequence[str]
    scales: Mapping[str, float]

    def terms(self) -> list[tuple[float, frozenset[str]]]:
        """(weight, kinds) whose residuals add up to the use's.

        A network of one kind is scaled. An adapter gives one set of residuals for all its maps, so
        theirs is the Choquet integral of the scales: with s1 <= s2, s1 r(1, 2) + (s2 - s1) r(2).
        Equal scales take one evaluation. Scales are above 0.
        """
        levels = sorted(set(self.scales.values()))
        terms, reached = [], 0.0
        for level in levels:
            given = frozenset(kind for kind, scale in self.scales.items() if scale >= level)
            terms.append((level - reached, given))
            reached = level
        return terms


class Several(nn.Module):
    """The sum of what several uses add to a U-Net; `kinds` are those of the hint, in order."""

    def __init__(self, uses: Sequence[Use], kinds: Sequence[str]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(use.controlnet for use in uses)
        self.extractor = _Encoders(uses, kinds)

    @property
    def device(self) -> torch.device:
        """Of the networks."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the networks."""
        return next(self.parameters()).dtype

    def forward(
        self, sample: Tensor, timestep: Tensor, *, controlnet_cond: Tensor, **options: Any
    ) -> tuple[list[Tensor], Tensor]:
        """(down residuals, mid residual), as a ControlNet with `return_dict=False` has them."""
        features = self.extractor(controlnet_cond)
        total: list[Tensor] = []
        for call, known in zip(self.extractor.calls, features, strict=True):
            hint = self.extractor.hint(call, controlnet_cond)
            with answering(call.controlnet, known):
                down, mid = call.controlnet(sample, timestep, controlnet_cond=hint, **options)
            scaled = [call.weight * residual for residual in (*down, mid)]
            total = [a + b for a, b in zip(total, scaled, strict=True)] if total else scaled
        return total[:-1], total[-1]


@dataclass(frozen=True)
class _Call:
    controlnet: nn.Module
    kinds: Sequence[str]
    given: frozenset[str]
    weight: float


class _Encoders(nn.Module):
    """The features of all calls' maps; of the name by which maps are encoded once an image."""

    def __init__(self, uses: Sequence[Use], kinds: Sequence[str]) -> None:
        super().__init__()
        self._kinds = tuple(kinds)
        self.calls = [
            _Call(use.controlnet, use.kinds, given, weight)
            for use in uses
            for weight, given in use.terms()
        ]

    def hint(self, call: _Call, maps: Tensor) -> Tensor:
        """What a network is given of the maps [n, 3 x number of kinds, H, W]."""
        by_kind = dict(zip(self._kinds, maps.split(3, dim=1), strict=True))
        nothing = torch.zeros_like(maps[:, :3])
        return torch.cat([by_kind[k] if k in call.given else nothing for k in call.kinds], dim=1)

    def forward(self, maps: Tensor) -> list[Any]:
        """Of each call."""
        return [encoded_maps(call.controlnet, self.hint(call, maps)) for call in self.calls]
