"""Every figure of the papers that counting can reproduce, within 0.2%."""

import pytest
import torch

from distillery.core.errors import DistilleryError
from distillery.cost.accounting import (
    entry_of,
    load_architecture,
    low_rank_unet,
    paper_entries,
)
from tiny_models import tiny_unet

TOTALS = {
    "stable_diffusion": 1289.95e6,
    "elr_stage_1": 788.3e6,
    "uni_controlnet": 1271.4e6,
    "uni_controlnet_pipeline": 1478.1e6,
    "elr_table_2": 750.1e6,
    "controlnet_teacher": 364.2e6,
    "controlnet_reduced_channel": 183.7e6,
    "controlnet_reduced_layer": 92.7e6,
    "controlnet_modulated": 101.57e6,
    "controlnet_loha": 57.33e6,
    "controlnet_distilled": 59.49e6,
    "elr_kronecker_factors": 3.45e6,
}


@pytest.fixture(scope="module")
def entries():
    found = paper_entries("sd21", load_architecture("sd21"))
    by_name = {}
    for entry in found:
        by_name.setdefault(entry.name, entry)  # the paper's own architecture comes first
    return by_name


@pytest.mark.parametrize("name", TOTALS)
def test_printed_and_counted_figures_are_reproduced(entries, name):
    assert entries[name].counts["total"] == pytest.approx(TOTALS[name], rel=2e-3)


def test_table_3_is_in_its_stated_range(entries):
    assert 535e6 <= entries["elr_table_3"].counts["total"] < 543.5e6


def test_trained_parts_of_the_kronecker_adapter_add_up(entries):
    parts = [entries[n].counts["total"] for n in ("elr_kronecker_factors", "elr_injection")]
    assert parts[1] == pytest.approx(63e6, rel=0.01)
    whole = entries["elr_dense"].counts
    assert sum(parts) == whole["requires_grad"] == whole["in_optimiser"]
    assert whole["unet"] + whole["adapter"] == whole["total"]


def test_columns_say_what_is_trained(entries):
    teacher = entries["stable_diffusion"].counts
    assert teacher["requires_grad"] == 0
    assert teacher["unet"] == 865_910_724
    student = entries["elr_stage_1"].counts
    assert student["requires_grad"] == student["unet"] == student["in_optimiser"]
    assert entries["uni_controlnet"].counts["bytes_on_disk"] >= 4 * 1271e6


def test_scopes_that_differ_are_named(entries):
    assert "1271 -> 543" in entries["elr_table_2"].note
    assert entries["elr_table_2"].scope != entries["uni_controlnet"].scope


def test_other_architectures_have_no_printed_figures():
    found = paper_entries("scenes", load_architecture("scenes"))
    assert all(entry.architecture == "scenes" and not entry.printed for entry in found)


def test_an_unknown_architecture_names_the_known_ones(tmp_path):
    with pytest.raises(DistilleryError, match="sd15, sd21, scenes"):
        load_architecture(str(tmp_path))


def test_counts_follow_requires_grad():
    student = low_rank_unet(tiny_unet())
    student.conv_in.requires_grad_(False)
    counts = entry_of("x", "tiny", "U-Net", {"unet": student}).counts
    frozen = sum(p.numel() for p in student.conv_in.parameters())
    assert counts["total"] - counts["requires_grad"] == frozen
    assert all(p.device == torch.device("meta") for p in student.parameters() if p.dim() > 1)
