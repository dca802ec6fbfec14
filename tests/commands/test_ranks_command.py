"""`distillery ranks` plans within its target, before training, with and without a teacher."""

from pathlib import Path

import pytest

from distillery.commands import ranks
from distillery.core.errors import DistilleryError

SCENES = Path("data/scenes-sd")


def test_790_million_on_stable_diffusion_2_1():
    found = ranks.plan("sd21", {"--target-total": 790e6})
    total = found["components"]["total"]
    assert 0.99 * 790e6 < total["after"] <= 790e6
    assert total["before"] == 1_289_952_427 or total["before"] / 1e6 == pytest.approx(1289.95, 1e-4)
    blocks = [p["after"] for n, p in found["components"].items() if n.startswith("unet.")]
    assert sum(blocks) == found["components"]["unet"]["after"]
    assert "GFLOP" in ranks.as_text(found)


@pytest.mark.parametrize("target", [{"--target-unet": 2e6}, {"--target-flops": 8e7}])
def test_a_teacher_gives_spectra_and_both_errors(target):
    found = ranks.plan("scenes", target, teacher=SCENES)
    after = found["components"]["unet"]["after"], 2 * found["macs"]["after"]
    assert after["--target-flops" in target] <= next(iter(target.values()))
    assert found["error"]["spectrum"] < found["error"]["uniform"]
    assert found["ranks"] != found["uniform"]


def test_exactly_one_target():
    for targets in ({}, {"--target-total": 1e9, "--target-unet": 1e9}):
        with pytest.raises(DistilleryError, match="exactly one of"):
            ranks.plan("sd21", targets)


def test_a_target_out_of_reach_is_refused():
    with pytest.raises(DistilleryError, match="out of reach"):
        ranks.plan("sd15", {"--target-total": 1e6})


def test_a_preset_that_is_not_there_is_not_laid_on_the_target():
    with pytest.raises(DistilleryError, match=r"^nothere/unet/config.json: not found; give sd15"):
        ranks.plan("nothere", {"--target-unet": "1M"})
