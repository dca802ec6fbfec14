"""What a student ControlNet is trained on: three distances, each a named term.

In: a student ControlNet and a batch with condition maps. Out: `diffusion`, the error of the frozen
U-Net under the student's control against the data; `teacher`, its distance to the U-Net under the
teacher's control; `kd_<i>` and `kd_mid`, the distance of each of the student's outputs to the
teacher's, divided by their number. Each has its factor applied. Only the student gets gradients.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from distillery.diffusion.batch import Batch
from distillery.diffusion.control import (
    ControlTeacher,
    batch_residuals,
    controlled_output,
)
from distillery.diffusion.layerwise import Layerwise
from distillery.diffusion.objectives import Diffusion, Terms


@dataclass(frozen=True)
class Factors:
    """Of the three distances; what is multiplied by 0 is not computed."""

    diffusion: float
    teacher: float
    kd: float


@dataclass(frozen=True)
class DistillControlNet:
    """Control by maps of `kind`; `layerwise` is needed where `factors.kd` is not 0."""

    kind: str
    diffusion: Diffusion
    teacher: ControlTeacher
    factors: Factors
    layerwise: Layerwise | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        noisy = self.diffusion.noisy(batch)
        given = batch_residuals(model, noisy, batch, self.kind)
        wanted = self.teacher.residuals(batch, noisy) if self.layerwise else None
        terms = self._output_terms(batch, noisy, given, wanted)
        if self.layerwise:
            distances = self.layerwise.distances(wanted, given)
            factor = self.factors.kd / len(distances)
            names = [*(f"kd_{place}" for place in range(len(distances) - 1)), "kd_mid"]
            terms |= {n: factor * d for n, d in zip(names, distances, strict=True)}
        return terms

    def _output_terms(
        self, batch: Batch, noisy: Tensor, given: list[Tensor], wanted: list[Tensor] | None
    ) -> Terms:
        """`diffusion` and `teacher`, which need the U-Net's output."""
        if not (self.factors.diffusion or self.factors.teacher):
            return {}
        terms, error = {}, self.diffusion.error
        output = controlled_output(self.teacher.unet, noisy, batch, given)
        if self.factors.diffusion:
            data = self.diffusion.target(batch)
            terms["diffusion"] = self.factors.diffusion * error(output, data, batch)
        if self.factors.teacher:
            theirs = self.teacher.output(batch, noisy, wanted)
            terms["teacher"] = self.factors.teacher * error(output, theirs, batch)
        return terms

    def compare(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The U-Net's outputs under the student's and under the teacher's control."""
        noisy = self.diffusion.noisy(batch)
        given = batch_residuals(model, noisy, batch, self.kind)
        return (
            controlled_output(self.teacher.unet, noisy, batch, given),
            self.teacher.output(batch, noisy),
        )
