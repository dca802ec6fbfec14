import subprocess
import sys

from distillery.data.conditions import KINDS
from distillery.metrics import meters
from distillery.metrics.catalog import CATALOG, base_of, label_of, title_of
from distillery.metrics.meter import MAPS, PAIRS


def test_every_metric_that_is_measured_has_an_entry():
    assert set(meters.names_of((*meters.METERS, *meters.SET_METERS))) <= set(CATALOG)
    assert {base_of(name) for name in CATALOG} <= set(CATALOG)


def test_entries_know_what_they_are_measured_from():
    assert PAIRS in CATALOG["psnr_teacher"].needs
    assert CATALOG["edge_f1"].follows_maps
    assert not CATALOG["kid_teacher"].follows_maps
    assert CATALOG["psnr_teacher"].direction == CATALOG["psnr"].direction == "up"
    assert (title_of("ssim"), label_of("fid_pair")) == ("SSIM", "fid pair")


def test_every_kind_is_compared_by_a_group_that_there_is():
    groups = {meter.group for meter in meters.METERS if meter.needs_any({MAPS})}
    assert {kind.group for kind in KINDS.values()} - {None} <= groups


def test_the_lists_cost_no_torch():
    """The front ends, the report and every command look at them."""
    script = (
        "import sys, distillery.data.conditions\n"
        "assert not {'torch', 'cv2', 'numpy'} & set(sys.modules), 'conditions'\n"
        "import distillery.metrics.catalog\n"
        "assert 'torch' not in sys.modules, 'catalog'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
