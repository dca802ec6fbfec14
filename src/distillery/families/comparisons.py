"""What a variant's images are compared with, and under which names.

In: `<family>/<variant>`, the real images, folders with the teacher's samples. Out: comparisons, and
reasons for those that there are none of. Which there are its family says (`Family.compared_with`).
Not here: the metrics.

`distribution` stands for fid, fid_extrapolated and kid, `fidelity` for ssim, psnr and lpips.
"""

from collections.abc import Callable
from pathlib import Path

from distillery.core.artifacts import content_of
from distillery.core.errors import DistilleryError
from distillery.data.pictures import Pictures
from distillery.families import FAMILIES
from distillery.families.base import OFFSET, Against
from distillery.metrics.evaluation import Comparison
from distillery.sampling.samples import sample_folders

DISTRIBUTION = ("fid", "fid_extrapolated", "kid")
FIDELITY = ("psnr", "ssim", "lpips")
SAME = "these are the reference images themselves"
NONE = "no reference images of the teacher are given"
REAL, OFFSET_REFERENCE = "real", "offset_reference"


def comparisons(
    variant: str,
    samples: Path,
    real: Pictures,
    read: Callable[[Path], Pictures],
    reference: Path | None,
    offset_reference: Path | None,
) -> tuple[list[Comparison], dict[str, str]]:
    """The comparisons of a variant and {metric: why it is not measured}.

    `read(folder)` gives the images of one training seed's folder. Raises DistilleryError for an
    offset reference of a family that is not judged by one.
    """
    family, _, name = variant.partition("/")
    wanted = FAMILIES[family].compared_with(name)
    folders = {"reference": reference, OFFSET_REFERENCE: offset_reference}
    if offset_reference and not any(against.images == OFFSET_REFERENCE for against in wanted):
        raise DistilleryError(
            f"{variant}: --offset_reference is for ControlNets; give --reference alone"
        )
    compared: list[Comparison] = []
    skipped: dict[str, str] = {}
    for against in wanted:
        suffixes = (against.distribution, against.fidelity)
        if against.images == REAL:
            compared.append(Comparison("real test images", real, *suffixes))
            continue
        folder = folders[against.images]
        if folder is None or content_of(folder) == content_of(samples):
            skipped |= dict.fromkeys(suffixed(against), NONE if folder is None else SAME)
            continue
        images = read(next(iter(sample_folders(folder).values())))
        compared.append(Comparison(_describe(variant, folder), images, *suffixes))
    return compared, skipped


def suffixed(against: Against) -> list[str]:
    """Names of the metrics of a comparison."""
    groups = ((DISTRIBUTION, against.distribution), (FIDELITY, against.fidelity))
    return [name + suffix for names, suffix in groups if suffix is not None for name in names]


def _describe(variant: str, folder: Path) -> str:
    """Such as `teacher/guided, same prompts and noise`."""
    differs = variant.endswith(OFFSET) != folder.name.endswith(OFFSET)
    noise = "same prompts, other noise" if differs else "same prompts and noise"
    return f"{folder.parent.name}/{folder.name}, {noise}"
