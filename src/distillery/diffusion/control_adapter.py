"""What a control adapter is trained on: the diffusion loss, and the residuals of ControlNets.

In: an adapter and a batch with condition maps. Out: `diffusion`, the error of the frozen U-Net
under the adapter's control against the data (ELR-Diffusion, Stage II); on request `kd`, the
distance of the adapter's residuals to those of one ControlNet per condition (ControlNet knowledge
distillation, layerwise). Factors are applied. Not here: the adapter, drop rates, the loop.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from distillery.diffusion.batch import Batch
from distillery.diffusion.conditioning import Conditioning, chosen, repeated
from distillery.diffusion.control import Residuals, batch_residuals, controlled_output
from distillery.diffusion.control_drop import Drop, apply_mask, single_conditions
from distillery.diffusion.layerwise import Layerwise
from distillery.diffusion.objectives import Diffusion, Terms
from distillery.diffusion.processes import in_any_process
from distillery.models.control_adapter.hints import stack

CONDITIONS, CAPTIONS = "conditions", "captions"  # what a batch's `drawn` holds


@dataclass(frozen=True)
class ControlNets:
    """One teacher ControlNet per condition, by kind; each gives residuals in the same places."""

    by_kind: Mapping[str, Residuals]

    @torch.no_grad()
    def residuals(self, batch: Batch, noisy: Tensor, kept: Tensor) -> list[Tensor]:
        """Residuals under the conditions in `kept`, bool [n, num_conditions], in their order.

        The mean over a sample's ControlNets, as `MultiControlNetModel` adds them up at a scale of
        one over their number; zeros where none is kept. No ControlNet sees a sample in vain.
        """
        shares = kept / kept.sum(1, keepdim=True).clamp(min=1)
        totals: list[Tensor] = []
        for place, ask in enumerate(self.by_kind.values()):
            rows = kept[:, place].nonzero()[:, 0].to(noisy.device)
            if not len(rows):
                continue
            residuals = ask(batch.at(rows), noisy[rows])
            totals = totals or [r.new_zeros(len(kept), *r.shape[1:]) for r in residuals]
            share = shares[:, place].to(noisy)[rows].view(-1, 1, 1, 1)
            for total, residual in zip(totals, residuals, strict=True):
                total.index_add_(0, rows, residual * share.to(residual.dtype))
        return totals


@dataclass(frozen=True)
class Distances:
    """The factors of both terms; `controlnets` is needed where `kd` is not 0."""

    diffusion: float = 1.0
    kd: float = 0.0
    controlnets: ControlNets | None = None


@dataclass(frozen=True)
class TuneControl:
    """The adapter's loss on a frozen U-Net, in its native space.

    In training, conditions and captions are dropped. In evaluation mode every sample has its
    caption and one condition, by turns. `empty` is the empty caption's conditioning, one row.
    """

    diffusion: Diffusion
    unet: UNet2DConditionModel
    kinds: tuple[str, ...]
    empty: Conditioning
    drop: Drop
    distances: Distances = Distances()

    def prepare(self, batch: Batch, share: int = 0, num_shares: int = 1) -> Batch:
        """The batch with the choice of what each sample keeps, from torch's generator.

        The choice is made for all of a step's shares, so that it does not depend on their number.
        """
        num_samples = len(batch.keys) * num_shares
        conditions = self.drop.kept_conditions(num_samples, len(self.kinds))[share::num_shares]
        captions = self.drop.kept_captions(num_samples)[share::num_shares]
        return dataclasses.replace(batch, drawn={CONDITIONS: conditions, CAPTIONS: captions})

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        if model.training:
            batch = batch if batch.drawn else self.prepare(batch)
            kept, batch = batch.drawn[CONDITIONS], self._drop_captions(batch)
        else:
            kept = single_conditions(len(batch.latents), len(self.kinds))
        if batch.has_map:  # a map that is not there is a dropped one
            kept = kept & torch.stack([batch.has_map[kind] for kind in self.kinds], 1).to(kept)
        noisy = self.diffusion.noisy(batch)
        given = self._residuals(model, noisy, batch, kept)
        terms = {}
        if factor := self.distances.diffusion:
            output = controlled_output(self.unet, noisy, batch, given)
            error = self.diffusion.error(output, self.diffusion.target(batch), batch)
            terms["diffusion"] = factor * error
        if factor := self.distances.kd:
            terms["kd"] = factor * self._distance(batch, noisy, kept, given)
        return terms

    def _drop_captions(self, batch: Batch) -> Batch:
        kept, told = batch.drawn[CAPTIONS], batch.conditioning
        return dataclasses.replace(
            batch, conditioning=chosen(kept, told, repeated(self.empty, told))
        )

    def _residuals(
        self, model: nn.Module, noisy: Tensor, batch: Batch, kept: Tensor
    ) -> list[Tensor]:
        hint = apply_mask(stack(self.kinds, batch.conditions), kept)
        batch = dataclasses.replace(batch, conditions={"all": hint})
        return batch_residuals(model, noisy, batch, "all")

    def _distance(self, batch: Batch, noisy: Tensor, kept: Tensor, given: list[Tensor]) -> Tensor:
        """The mean of the layerwise distances, statistics over the batch, of all processes.

        Per sample they would be those of zeros where every condition is dropped.
        """
        wanted = self.distances.controlnets.residuals(batch, noisy, kept)
        if not in_any_process(bool(wanted), noisy.device):
            return given[0].new_zeros(())
        wanted = wanted or [torch.zeros_like(residual) for residual in given]
        layerwise = Layerwise(self.unet, len(given), "teacher", "layer_batch")
        return torch.stack(layerwise.distances(wanted, given)).mean()
