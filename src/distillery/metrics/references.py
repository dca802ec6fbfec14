"""What a variant's images are compared with, and under which names.

In: `<family>/<variant>`, the real images, folders with the teacher's samples. Out: comparisons, and
reasons for those that there are none of. Not here: the metrics.

| family | real images | `reference` | `offset_reference` |
|---|---|---|---|
| controlnet, teacher/control_* | fid, ssim | ssim_pair | fid_teacher, ssim_teacher |
| others | fid | fid_teacher, ssim | |

`fid` stands for fid, fid_extrapolated and kid; `ssim` for ssim, psnr and lpips. `reference` has the
same noise; `offset_reference` has another, so it has a floor above zero: the teacher against it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distillery.core.artifacts import content_of
from distillery.core.errors import DistilleryError
from distillery.data.pictures import Pictures
from distillery.sampling.samples import sample_folders

DISTRIBUTION = ("fid", "fid_extrapolated", "kid")
FIDELITY = ("psnr", "ssim", "lpips")
SAME = "these are the reference images themselves"
NONE = "no reference images of the teacher are given"


@dataclass(frozen=True)
class Comparison:
    """Images of the same records, and the suffixes of what is measured.

    None where this kind of metric is not measured.
    """

    description: str
    images: Pictures
    distribution: str | None
    fidelity: str | None


def has_control(variant: str) -> bool:
    """Whether a variant is a ControlNet, judged by two reference sets."""
    return variant.startswith(("controlnet/", "teacher/control_"))


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
    controlled = has_control(variant)
    if offset_reference is not None and not controlled:
        raise DistilleryError(
            f"{variant}: --offset_reference is for ControlNets; give --reference alone"
        )
    found = [Comparison("real test images", real, "", "" if controlled else None)]
    wanted = [(reference, None, "_pair") if controlled else (reference, "_teacher", "")]
    wanted += [(offset_reference, "_teacher", "_teacher")] if controlled else []
    skipped: dict[str, str] = {}
    for folder, distribution, fidelity in wanted:
        if folder is None or content_of(folder) == content_of(samples):
            reason = NONE if folder is None else SAME
            skipped |= dict.fromkeys(suffixed(distribution, fidelity), reason)
            continue
        images = read(next(iter(sample_folders(folder).values())))
        found.append(Comparison(_describe(variant, folder), images, distribution, fidelity))
    return found, skipped


def suffixed(distribution: str | None, fidelity: str | None) -> list[str]:
    """Names of the metrics with these suffixes."""
    groups = ((DISTRIBUTION, distribution), (FIDELITY, fidelity))
    return [name + suffix for names, suffix in groups if suffix is not None for name in names]


def _describe(variant: str, folder: Path) -> str:
    """Such as `teacher/guided, same prompts and noise`."""
    differs = variant.endswith("_offset") != folder.name.endswith("_offset")
    noise = "same prompts, other noise" if differs else "same prompts and noise"
    return f"{folder.parent.name}/{folder.name}, {noise}"
