"""Students planned by latency: within their targets, aligned, built by init_student, trainable."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache_helpers import v_teacher, write_cache, write_curated
from distillery.core.artifacts import read_json
from distillery.core.errors import DistilleryError
from distillery.cost.latency.costs import costs_of
from distillery.cost.latency.make import predict_table
from distillery.cost.latency.roofline import Machine
from distillery.cost.latency.table import write_form
from distillery.cost.latency.units import aligned_ranks
from distillery.families.pairings import check_export
from distillery.families.unet import calibration
from distillery.families.unet.init import Decomposition, write_decomposition
from distillery.families.unet.latency_plan import (
    Target,
    candidates,
    fits,
    make_plan,
    share_target,
    table_for,
    teacher_parts,
)
from distillery.families.unet.plan_report import level_rows, report
from distillery.families.unet.rivals import choose_by, removal_plan, uniform_plan
from distillery.families.unet.training import start_student
from distillery.models.lowrank.errors import Errors, assumed_errors
from distillery.models.lowrank.ranks import read_ranks, read_removed
from distillery.models.lowrank.removed import is_gone
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from tiny_models import ATTENTION_EVERYWHERE, tiny_pipeline

CPU, KEEP = torch.device("cpu"), ("conv_in", "conv_out")
NAME = "toy-fp32-b1"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """`teacher`, `cache` and `tables.json`, in which all costs are memory traffic."""
    folder = tmp_path_factory.mktemp("latency")
    write_curated(folder)
    tiny_pipeline(**ATTENTION_EVERYWHERE).save_pretrained(folder / "tiny")
    write_cache(folder, v_teacher(folder / "tiny", folder / "teacher"), folder / "cache")
    parts = teacher_parts(folder / "teacher")
    machine = Machine(1e9, 1e9, 1e-7)
    table = predict_table(parts, machine, name=NAME, multiple_of=8, dtype="float32", batch_size=1)
    (folder / "tables.json").write_text(json.dumps(write_form([table])))
    return folder


@pytest.fixture(scope="module")
def costs(root):
    parts = teacher_parts(root / "teacher")
    return costs_of(parts, table_for(str(root / "tables.json"), parts))


@pytest.fixture(scope="module")
def ranks(costs):
    return candidates(costs.parts, 8, KEEP)


@pytest.fixture(scope="module")
def errors(costs, ranks):
    """Layers alike; blocks in falling order of damage."""
    removal = {name: 3.0 / (i + 1) for i, name in enumerate(costs.parts.blocks)}
    return Errors("outputs", assumed_errors(costs.parts.shapes, list(ranks)).layers, removal)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.75, 0.95])
def test_the_plan_is_within_its_target_and_errs_least(costs, errors, ranks, share):
    target = share_target(costs, share, "--target-share")
    plan = make_plan(costs, errors, [target], ranks)
    assert costs.of(plan.ranks, plan.removed)["latency"] <= target.limit * (1 + 1e-9)
    assert all(rank % 8 == 0 for rank in plan.ranks.values())
    assert not {"conv_in", "conv_out"} & set(plan.ranks)
    assert not any(is_gone(name, plan.removed) for name in plan.ranks)
    assert plan.error == pytest.approx(errors.of(plan.ranks, plan.removed))
    rivals = [uniform_plan(costs, [target], KEEP), removal_plan(costs, [target], errors)]
    rivals = [errors.of(*rival) for rival in rivals if rival]
    assert rivals
    assert plan.error < min(rivals)


def test_the_dense_latency_keeps_everything(costs, errors, ranks):
    plan = make_plan(costs, errors, [share_target(costs, 1.0, "s")], ranks)
    assert (plan.ranks, plan.removed, plan.error) == ({}, (), 0)


def test_targets_combine(costs, errors, ranks):
    dense = dict(zip(("latency", "parameters", "macs"), costs.dense, strict=True))
    shares = {"latency": 0.8, "parameters": 0.5, "macs": 0.7}
    targets = [Target(kind, share * dense[kind], kind) for kind, share in shares.items()]
    plan = make_plan(costs, errors, targets, ranks)
    assert fits(costs, targets, plan.ranks, plan.removed)
    alone = make_plan(costs, errors, targets[:1], ranks)
    assert not fits(costs, targets, alone.ranks, alone.removed)
    assert alone.error < plan.error


def test_no_block_goes_whose_removal_was_not_measured(costs, ranks):
    assumed = assumed_errors(costs.parts.shapes, list(ranks))
    plan = make_plan(costs, assumed, [share_target(costs, 0.8, "s")], ranks)
    assert plan.removed == ()
    assert plan.ranks
    assert assumed.of({}, ["mid_block.resnets.0"]) is None
    with pytest.raises(DistilleryError, match=r"s 0\.2 of .* ms is out of reach.*all dense"):
        make_plan(costs, assumed, [share_target(costs, 0.2, "s")], ranks)


def test_bk_sdms_order_without_errors(costs, ranks):
    """Second pairs of the stages before the middle, the middle before first pairs."""
    assumed = assumed_errors(costs.parts.shapes, list(ranks))
    ranks, removed = removal_plan(costs, [share_target(costs, 0.9, "s")], assumed)
    assert removed
    assert ranks == {}
    assert all(name.endswith(".1") for name in removed)
    assert not any(name.startswith("mid_block") for name in removed)
    assert removal_plan(costs, [share_target(costs, 1e-6, "s")], assumed) is None


def test_the_report_has_a_row_for_every_layer(costs, errors, ranks):
    targets = [share_target(costs, 0.5, "--target-share")]
    plan = make_plan(costs, errors, targets, ranks)
    said = report(costs, errors, targets, (plan.ranks, plan.removed), KEEP)
    assert [row["name"] for row in said["layers"]] == list(costs.parts.layers)
    for row in said["layers"]:
        assert (row["form"] == "low_rank") == (row["rank"] is not None)
        assert (row["form"] == "removed") == is_gone(row["name"], plan.removed)
    counted = [row["dense"] + row["low_rank"] + row["removed"] for row in said["levels"]]
    assert sum(counted) == len(costs.parts.layers)
    assert level_rows(costs.parts, said["layers"]) == said["levels"]
    assert said["planned"]["share"] <= 0.5 + 1e-9
    assert said["dense"]["latency"] == costs.dense[0]
    assert said["planned"]["error"] < said["block_removal"]["error"]


@pytest.fixture(scope="module")
def built(root, tmp_path_factory):
    """Folders of starts by the rule latency, twice, and by a plan that removes blocks.

    What was measured of the teacher is kept for all but `afresh`.
    """
    folder, base = tmp_path_factory.mktemp("built"), root / "cache" / "base"
    rank = {
        "rule": "latency", "value": 0.5, "file": None, "device": str(root / "tables.json"),
        "multiple_of": None, "keep_dense": list(KEEP),
    }  # fmt: skip
    wanted = Decomposition("data_aware", rank, 0, 8, 8, memo=folder / "memo")
    removal = {"by": "removal", "share": 0.6, "device": NAME}
    plans = {
        "a": wanted,
        "c": replace(wanted, method="random"),
        "afresh": replace(wanted, memo=None),
        "removal": replace(wanted, method="svd", plan=removal, tables=root / "tables.json"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "NUM_DAMAGE_SAMPLES", 2)
        patch.setattr(calibration, "NUM_LAYER_SAMPLES", 1)
        for name, each in plans.items():
            write_decomposition(each, root / "teacher", base, folder / name, CPU)
    return folder


def test_equal_inputs_give_equal_bytes(built):
    first, afresh = (
        {file.name: file.read_bytes() for file in (built / name).iterdir()}
        for name in ("a", "afresh")
    )
    assert first == afresh
    assert len(list((built / "memo").iterdir())) == 1


def test_a_student_without_some_blocks_is_evaluated(built):
    """The gate of exports lets it pass: it has no dense form."""
    student = LowRankUNet2DConditionModel.from_pretrained(built / "removal")
    assert student.config.removed
    assert student.config.ranks == {}
    check_export(student)
    assert read_json(built / "removal" / "layers.json")["plan"]["by"] == "removal"


def test_init_student_builds_it(root, costs, built):
    """The same plan for every method."""
    student = start_student(
        "low_rank", "data_aware", teacher=root / "teacher", init_folder=built / "a", seed=0
    )
    config = LowRankUNet2DConditionModel.load_config(built / "c")
    assert config["removed"] == student.config.removed
    assert config["ranks"] == student.config.ranks
    found = costs.of(student.config.ranks, student.config.removed)
    assert found["latency"] <= 0.5 * costs.dense[0] * (1 + 1e-9)
    assert found["parameters"] == sum(p.numel() for p in student.parameters())
    plan = read_json(built / "a" / "layers.json")["plan"]
    assert plan["planned"]["latency"] == pytest.approx(found["latency"])
    assert plan["additivity"]["num_pairs"] > 0
    for name, choices in ((n, aligned_ranks(costs.parts.shapes[n], 8)) for n in plan["ranks"]):
        assert plan["ranks"][name] in choices
    random = start_student(
        "low_rank", "random", teacher=root / "teacher", init_folder=built / "c", seed=1
    )
    assert random.state_dict().keys() == student.state_dict().keys()


@pytest.mark.parametrize("share", [0.4, 0.8])
def test_every_criterion_keeps_the_target_or_says_its_least(costs, errors, ranks, share):
    target = share_target(costs, share, "share")
    best = make_plan(costs, errors, [target], ranks).error
    for criterion in ("latency", "parameters", "removal", "random_removal"):
        choice = choose_by(criterion, costs, target, errors, ranks, KEEP)
        assert fits(costs, [target], *choice)
        assert errors.of(*choice) >= best * (1 - 1e-9)
        assert choose_by(criterion, costs, target, errors, ranks, KEEP) == choice
        if "removal" in criterion:
            assert choice[0] == {}
    with pytest.raises(DistilleryError, match=r"share 0\.01 .* is out of reach by uniform"):
        choose_by("uniform", costs, share_target(costs, 0.01, "share"), errors, ranks, KEEP)


def test_what_a_plan_by_latency_needs_is_said(root, tmp_path):
    rank = {
        "rule": "latency", "value": 0.5, "file": None, "device": str(root / "tables.json"),
        "multiple_of": 8, "keep_dense": list(KEEP),
    }  # fmt: skip
    for method, cache, message in (
        ("svd", None, "needs --base"),
        ("planned", root / "cache" / "base", "it is a plan already"),
    ):
        wanted = Decomposition(method, rank, other_params=0, num_moment_samples=8, batch_size=8)
        with pytest.raises(DistilleryError, match=message):
            write_decomposition(wanted, root / "teacher", cache, tmp_path / method, CPU)


def test_a_plan_in_a_file_says_what_is_removed(root, costs, errors, ranks, tmp_path):
    targets = [share_target(costs, 0.4, "s")]
    plan = make_plan(costs, errors, targets, ranks)
    assert plan.removed
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(report(costs, errors, targets, (plan.ranks, plan.removed), KEEP)))
    rank = {
        "rule": "file", "value": 1.0, "file": str(path), "device": None, "multiple_of": None,
        "keep_dense": list(KEEP),
    }  # fmt: skip
    wanted = Decomposition("svd", rank, other_params=0, num_moment_samples=8, batch_size=8)
    write_decomposition(wanted, root / "teacher", None, tmp_path / "svd", CPU)
    config = LowRankUNet2DConditionModel.load_config(tmp_path / "svd")
    assert (config["ranks"], config["removed"]) == (plan.ranks, list(plan.removed))
    model = costs.parts.model.module
    assert read_ranks(path, model) == plan.ranks
    for removed, said in ((["mid_block"], "no block 'mid_block'"), ("mid_block", "is no list")):
        path.write_text(json.dumps({"ranks": {}, "removed": removed}))
        with pytest.raises(DistilleryError, match=said):
            read_removed(path, model)


def test_tables_are_found_by_name_or_file(root, costs, tmp_path):
    parts = costs.parts
    with pytest.raises(DistilleryError, match="no table of that name in"):
        table_for(NAME, parts, tmp_path)
    (tmp_path / "one.json").write_bytes((root / "tables.json").read_bytes())
    assert table_for(NAME, parts, tmp_path) == costs.table
    (tmp_path / "two.json").write_bytes((root / "tables.json").read_bytes())
    with pytest.raises(DistilleryError, match=f"2 tables {NAME} fit"):
        table_for(NAME, parts, tmp_path)
    with pytest.raises(DistilleryError, match="0 tables of it fit"):
        table_for(str(tmp_path / "none.json"), parts)
    assert table_for("h100-fp16-b8", parts, tmp_path).basis == "predicted"
    other = replace(costs.table, models={"another": {"median_s": 1.0}})
    (tmp_path / "other.json").write_text(json.dumps(write_form([other])))
    with pytest.raises(DistilleryError, match="has it for another, and this is unet"):
        table_for(NAME, parts, tmp_path / "other.json")


def test_the_parts_of_a_measured_table_add_up(costs, tmp_path):
    """Timed alone they were half as long as in the model, here."""
    half = {key: {"median_s": unit["median_s"] / 2} for key, unit in costs.table.blocks.items()}
    layers = {
        key: {form: {"median_s": value["median_s"] / 2} for form, value in forms.items()}
        for key, forms in costs.table.layers.items()
    }
    measured = replace(costs.table, basis="measured", layers=layers, blocks=half)
    (tmp_path / "t.json").write_text(json.dumps(write_form([measured])))
    table = table_for(NAME, costs.parts, tmp_path / "t.json")
    key = costs.parts.layers["conv_in"].key
    found = costs_of(costs.parts, table)
    assert found.fixed[0] == pytest.approx(0, abs=1e-9)
    assert found.dense[0] == costs.dense[0]
    ratio = table.layer_s(key, None) / table.block_s(next(iter(table.blocks)))
    before = costs.table
    assert ratio == pytest.approx(before.layer_s(key, None) / before.block_s(next(iter(half))))


def test_errors_by_any_knowledge_have_the_shape_of_a_curve(costs, ranks):
    curves = assumed_errors(costs.parts.shapes, list(ranks)).layers
    for name, curve in curves.items():
        assert len(curve) == costs.parts.shapes[name].full_rank + 1
        assert (curve[0], curve[-1]) == (1, 0)
        assert np.all(np.diff(curve) < 0)
