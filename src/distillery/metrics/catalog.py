"""What people call the metrics of images: one entry each, for tables, charts and options.

In: nothing. Out: `CATALOG`, by the name under which a metric stands in the metrics files, in the
order of tables. What a metric needs is known to its meter (`meters`), by the metric that the
entry is a form of: `fid_teacher` is `fid` against the teacher. A reworded label is no code of
`evaluate`. Torch is not imported.
"""

from dataclasses import dataclass

from distillery.metrics import meters
from distillery.metrics.meter import MAPS, PREDICTIONS, needing

SUFFIXES = ("_teacher", "_pair")


@dataclass(frozen=True)
class Metric:
    """A metric in words; `higher`: a higher value is better.

    `title` is its name in charts, None: `label`. `in_tables`: beside the papers'
    metrics in the CSV files; `on_page`: in the page's table of everything that was measured.
    """

    name: str
    label: str
    higher: bool = False
    unit: str = ""
    title: str | None = None
    in_tables: bool = True
    on_page: bool = True

    @property
    def direction(self) -> str:
        """`up` where a higher value is better, else `down`."""
        return "up" if self.higher else "down"

    @property
    def needs(self) -> frozenset[str]:
        """What it is measured from, in the words of `meter`."""
        return NEEDS.get(base_of(self.name), needing(PREDICTIONS))

    @property
    def follows_maps(self) -> bool:
        """Whether it says how well a condition map is followed: for who was given one."""
        return MAPS in self.needs


def base_of(name: str) -> str:
    """The metric that a name is a form of: `fid` of `fid_teacher`."""
    forms = (name.removesuffix(suffix) for suffix in SUFFIXES)
    return name if name in NEEDS else next((form for form in forms if form in NEEDS), name)


NEEDS = {
    name: needs
    for meter in (*meters.METERS, *meters.SET_METERS)
    for name, needs in meter.needs.items()
}
_METRICS = (
    Metric("fid", "FID", in_tables=False),
    Metric("fid_extrapolated", "FID, bias removed"),
    Metric("kid", "KID", title="KID to real images (lower is better)"),
    Metric(
        "prediction_distance",
        "Distance to teacher's prediction",
        unit="of the teacher's energy",
        title="distance to the teacher's prediction (lower is better)",
    ),
    Metric("fid_extrapolated_teacher", "FID to teacher, bias removed"),
    Metric("kid_teacher", "KID to teacher", title="KID to the teacher (lower is better)"),
    Metric("fid_teacher", "FID to teacher", on_page=False),
    Metric("clip_score", "CLIP score", higher=True, title="CLIP score"),
    Metric("edge_f1", "Edge F1", higher=True, title="edges of the condition found (F1)"),
    Metric("edge_precision", "Edge precision", higher=True),
    Metric("edge_recall", "Edge recall", higher=True),
    Metric("edge_nmse", "Edge NMSE"),
    Metric("edge_nmse_symmetric", "Edge NMSE, symmetric"),
    Metric("miou", "Segmentation IoU", higher=True, title="regions of the condition kept (mIoU)"),
    Metric("sketch_clip_score", "Sketch CLIP score", higher=True),
    Metric("sketch_similarity", "Sketch similarity", higher=True, in_tables=False, on_page=False),
    Metric("depth_distance", "Depth distance", title="distance to the depth asked for"),
    Metric("normal_angle", "Angle of normals", unit="degrees"),
    Metric("pose_distance", "Pose distance"),
    Metric("scribble_distance", "Scribble distance"),
    Metric("softedge_distance", "Soft edge distance"),
    Metric("blur_distance", "Blur distance"),
    Metric("psnr", "PSNR, dB", higher=True, unit="dB"),
    Metric("ssim", "SSIM", higher=True),
    Metric("lpips", "LPIPS", title="LPIPS to the guided teacher (lower is better)"),
    Metric("psnr_teacher", "PSNR to teacher, other noise", True, "dB", in_tables=False),
    Metric("ssim_teacher", "SSIM to teacher, other noise", True, in_tables=False),
    Metric("lpips_teacher", "LPIPS to teacher, other noise", in_tables=False),
    Metric("psnr_pair", "PSNR to teacher, same noise", True, "dB"),
    Metric("ssim_pair", "SSIM to teacher, same noise", True),
    Metric(
        "lpips_pair",
        "LPIPS to teacher, same noise",
        title="LPIPS to the teacher, same noise (lower is better)",
    ),
    Metric("reader_colour", "Colours", higher=True, title="colours as asked (recall)"),
    Metric("reader_shape", "Shapes", higher=True, title="shapes drawn as asked (recall)"),
    Metric("reader_pair", "Colour and shape", higher=True),
    Metric("reader_background", "Background", higher=True),
)
CATALOG: dict[str, Metric] = {metric.name: metric for metric in _METRICS}


def label_of(name: str) -> str:
    """A metric's label; of what the catalogue does not have, its name in words."""
    return CATALOG[name].label if name in CATALOG else name.replace("_", " ")


def title_of(name: str) -> str:
    """A metric's name in charts."""
    return CATALOG[name].title or CATALOG[name].label
