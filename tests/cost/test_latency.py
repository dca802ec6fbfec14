"""Latency tables: their units, their arithmetic, their predictions, the command that makes them."""

import json
import re
from dataclasses import replace

import pytest
import torch

from distillery import cli
from distillery.commands.latency import as_text
from distillery.core.errors import DistilleryError
from distillery.cost.latency import measure as measuring
from distillery.cost.latency.make import (
    alignment,
    measure_table,
    predict_table,
    predicted_by_name,
    split_name,
)
from distillery.cost.latency.measure import Clock, Pool
from distillery.cost.latency.roofline import MACHINES, Machine, measure_machine, roofline_s
from distillery.cost.latency.table import (
    LatencyTable,
    plan_s,
    read_tables,
    remainder_s,
    write_form,
)
from distillery.cost.latency.units import Tensors, aligned_ranks, anatomy, rank_grid
from distillery.models.architectures import build_meta
from distillery.models.layers import LayerShape
from distillery.models.lowrank.ranks import plan_ranks
from tiny_models import tiny_unet

CPU, META = torch.device("cpu"), torch.device("meta")
MACHINE = Machine(1e9, 1e9, 1e-6)


@pytest.fixture(scope="module")
def parts():
    return anatomy(tiny_unet(), side=8, num_tokens=5)


@pytest.fixture(scope="module")
def table(parts):
    return predict_table(
        parts, MACHINE, name="toy-fp32-b2", multiple_of=8, dtype="float32", batch_size=2
    )


@pytest.fixture(scope="module")
def sd15():
    return anatomy(build_meta("sd15")["unet"], side=64, num_tokens=77)


def test_stable_diffusion_has_282_layers_of_54_shapes(sd15):
    assert len(sd15.layers) == 282
    assert len({unit.key for unit in sd15.layers.values()}) == 54
    assert len(sd15.blocks) == 22 + 16
    first = sd15.layers["down_blocks.0.resnets.0.conv1"]
    assert first.key == "conv 320>320 3x3 /1x1 @64x64"
    assert first.key == sd15.layers["down_blocks.0.resnets.1.conv2"].key
    assert sd15.layers["mid_block.attentions.0.transformer_blocks.0.attn2.to_k"].key == (
        "linear 768>1280 @77"
    )


def test_a_removed_block_keeps_its_shortcut(parts):
    inside = parts.layers_of("up_blocks.0.resnets.0")
    gone = parts.layers_gone_with("up_blocks.0.resnets.0")
    assert set(inside) - set(gone) == {"up_blocks.0.resnets.0.conv_shortcut"}


@pytest.mark.parametrize(
    ("batch_size", "dense_ms", "low_rank_ms", "best_ms", "num_low_rank"),
    [(8, 12.37, 7.84, 7.21, 126), (1, 2.54, 2.62, 2.02, 70)],
)
def test_the_roofline_of_an_h100(sd15, batch_size, dense_ms, low_rank_ms, best_ms, num_low_rank):
    """60% of 800 TFLOP/s, 75% of 3 TB/s, 3 us a kernel; matrix products only."""
    tensors, known = Tensors(batch_size, META, torch.float16), {}

    def ms(name, rank):
        key = (sd15.layers[name].key, rank)
        if key not in known:
            known[key] = 1e3 * roofline_s(sd15.layers[name], rank, tensors, MACHINES["h100"])
        return known[key]

    ranks = plan_ranks(sd15.shapes)
    dense = {name: ms(name, None) for name in sd15.layers}
    low = {name: ms(name, ranks.get(name)) for name in sd15.layers}
    assert sum(dense.values()) == pytest.approx(dense_ms, abs=0.01)
    assert sum(low.values()) == pytest.approx(low_rank_ms, abs=0.01)
    assert sum(min(dense[n], low[n]) for n in dense) == pytest.approx(best_ms, abs=0.01)
    assert sum(low[n] < dense[n] for n in dense) == num_low_rank


def test_a_product_takes_its_arithmetic_or_its_traffic(parts):
    unit = parts.layers["mid_block.attentions.0.transformer_blocks.0.attn1.to_q"]
    tensors = Tensors(2, META, torch.float32)
    out, fan_in = unit.module.weight.shape
    rows = 2 * unit.inputs[0][1]
    compute = roofline_s(unit, None, tensors, Machine(1e6, 1e30, 0.5))
    assert compute == pytest.approx(2 * rows * out * fan_in / 1e6 + 0.5)
    memory = roofline_s(unit, None, tensors, Machine(1e30, 1e6, 0))
    assert memory == pytest.approx(4 * (rows * (out + fan_in) + out * fan_in) / 1e6)
    assert roofline_s(unit, 8, tensors, Machine(1e30, 1e30, 1)) == 2


def test_attention_counts_as_one_kernel_that_writes_no_scores(sd15):
    unit = sd15.blocks["down_blocks.0.attentions.0"]
    per_row = Machine(1e30, 1, 0)
    small, large = (
        roofline_s(unit, None, Tensors(n, META, torch.float16), per_row) for n in (1, 2)
    )
    assert large - small < 1e9 < 8 * 4096**2 * 2 * 10  # bytes for one image more: no 4096 x 4096


def test_ranks_are_aligned_and_smaller_than_dense():
    shape = LayerShape(1280, 11520)
    ranks = aligned_ranks(shape, 64)
    assert ranks == [*range(64, 1152, 64)]
    assert all(shape.num_low_rank(rank) < shape.num_dense for rank in ranks)
    grid = rank_grid(shape, 8)
    assert len(grid) == 10
    assert (grid[0], grid[-1]) == (8, 1144)
    assert all(rank % 8 == 0 for rank in grid)
    assert aligned_ranks(LayerShape(4, 2880), 8) == []
    assert rank_grid(LayerShape(4, 2880), 8) == [1]
    assert alignment("h100", "float16") == 64
    assert alignment("h100", "float32") == alignment("cpu", "float16") == 8


def fake_table(parts, seed=0) -> LatencyTable:
    """Every layer and block with a time of its own, so that a sum tells which were added."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> dict:
        return {"median_s": float(torch.rand(1, generator=generator, dtype=torch.float64)) + 1}

    layers = {u.key: {f: draw() for f in ("dense", "8", "24")} for u in parts.layers.values()}
    blocks = {u.key: {"median_s": 500 * draw()["median_s"]} for u in parts.blocks.values()}
    models = {parts.model.key: {"median_s": 1e5}}
    return LatencyTable("toy-fp32-b1", "measured", 8, layers, blocks, models, {})


def test_a_plan_is_the_dense_model_with_its_layers_exchanged(parts):
    table = fake_table(parts)
    assert plan_s(table, parts, {}) == 1e5
    conv, linear = "mid_block.resnets.0.conv1", "time_embedding.linear_1"
    keys = [parts.layers[name].key for name in (conv, linear)]
    first, second = (table.layers[key] for key in keys)
    expected = (
        1e5 - first["dense"]["median_s"] + (first["8"]["median_s"] + first["24"]["median_s"]) / 2
        - second["dense"]["median_s"] + second["8"]["median_s"]
    )  # fmt: skip
    assert plan_s(table, parts, {conv: 16, linear: 8}) == pytest.approx(expected, abs=1e-9)


def test_a_removed_block_takes_its_layers_and_its_remainder_but_not_its_shortcut(parts):
    table, block = fake_table(parts), "up_blocks.0.resnets.0"
    shortcut = f"{block}.conv_shortcut"
    rest = 1e5 - table.block_s(parts.blocks[block].key)
    kept = table.layer_s(parts.layers[shortcut].key)
    assert plan_s(table, parts, {}, [block]) == pytest.approx(rest + kept, abs=1e-6)
    low = table.layer_s(parts.layers[shortcut].key, 8)
    assert plan_s(table, parts, {shortcut: 8}, [block]) == pytest.approx(rest + low, abs=1e-6)


def test_a_remainder_is_never_negative(parts):
    table = fake_table(parts)
    noisy = replace(table, blocks={key: {"median_s": 0.1} for key in table.blocks})
    assert remainder_s(noisy, parts, "mid_block.attentions.0") == 0


def test_predictions_add_up(parts, table):
    """Layers, remainders and what lies outside blocks are the model, for a pure sum of kernels."""
    removed = plan_s(table, parts, {}, list(parts.blocks))
    assert 0 < removed < table.model_s(parts.model.key)
    for name in parts.blocks:
        assert remainder_s(table, parts, name) > 0
    assert table.basis == "predicted"
    assert table.covers(parts)


def test_tables_survive_a_file_and_lie_in_folders(parts, table, tmp_path):
    for index, entry in enumerate((table, fake_table(parts))):
        (tmp_path / f"{index}.json").write_text(json.dumps(write_form([entry])))
    assert [entry.name for entry in read_tables(tmp_path)] == ["toy-fp32-b2", "toy-fp32-b1"]
    again = read_tables(tmp_path / "0.json")[0]
    assert again == table
    assert again.facts["constants"] == vars(MACHINE)
    assert read_tables(tmp_path / "none") == []
    (tmp_path / "2.json").write_text('{"rows": 3}')
    with pytest.raises(DistilleryError, match=r"2\.json: not a file of latency tables"):
        read_tables(tmp_path)


@pytest.mark.parametrize(
    ("group", "key", "value", "message"),
    [
        ("layers", 0, {"dense": {"median_s": "fast"}}, "median_s 'fast' is no time above 0"),
        ("layers", 0, {"dense": {"median_s": float("nan")}}, "median_s nan is no time above 0"),
        ("layers", 0, {"8": {"median_s": 1.0}}, "forms are dense and ranks"),
        ("layers", 0, {"dense": {"median_s": 1.0}, "x": {}}, "forms are dense and ranks"),
        ("blocks", 0, {"median_s": -1.0}, "median_s -1.0 is no time above 0"),
        ("models", 0, {}, "median_s None is no time above 0"),
        ("layers", 0, {"dense": {"median_s": True}}, "median_s True is no time above 0"),
        ("layers", 0, {"dense": {"median_s": 1e9}}, "1000000000.0 s, the whole model takes"),
        ("blocks", 0, {"median_s": 1e9}, "1000000000.0 s, the whole model takes"),
        ("name", None, 5, "name 5 and basis 'measured', which is one of measured, predicted"),
        ("basis", None, "guessed", "basis 'guessed', which is one of measured, predicted"),
        ("layers", None, [1], "has no attribute"),
        ("multiple_of", None, 0, "multiple_of 0 is no whole number"),
        ("multiple_of", None, "8", "multiple_of '8' is no whole number"),
    ],
)
def test_a_damaged_or_edited_table_is_named(parts, tmp_path, group, key, value, message):
    form = write_form([fake_table(parts)])
    entry = form["tables"][0]
    if key is None:
        entry[group] = value
    else:
        entry[group] = {**entry[group], list(entry[group])[key]: value}
    (tmp_path / "t.json").write_text(json.dumps(form))
    with pytest.raises(
        DistilleryError, match=rf"t\.json: not a file of .*{message}.*distillery lat"
    ):
        read_tables(tmp_path)


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(measuring, "_LEAST_S", {"cpu": 1e-6})


def test_a_table_of_this_machine(parts, hasty):
    rounds = []
    clock = Clock(CPU, torch.float32, 2, num_rounds=3)
    table = measure_table(parts, clock, name="cpu-fp32-b2", multiple_of=8, on_round=rounds.append)
    assert rounds == [0, 1, 2]
    assert table.covers(parts)
    assert table.basis == "measured"
    assert table.facts["batch_size"] == 2
    assert {"torch", "diffusers"} == set(table.facts["versions"])
    for forms in table.layers.values():
        assert all(int(form) % 8 == 0 for form in forms if form not in ("dense", "5"))
    every = [s for forms in table.layers.values() for s in forms.values()]
    for spread in [*every, *table.blocks.values(), *table.models.values()]:
        low, high = spread["quartiles_s"]
        assert 0 < low <= spread["median_s"] <= high
    assert table.model_s(parts.model.key) > max(s["median_s"] for s in every)


def test_the_time_budget_ends_the_rounds_but_not_before_three(parts, hasty):
    rounds = []
    clock = Clock(CPU, torch.float32, 1, num_rounds=50, budget_s=0.0)
    measure_table(parts, clock, name="n", multiple_of=64, on_round=rounds.append)
    assert rounds == [0, 1, 2]


def test_copies_of_a_layer_have_weights_of_their_own(parts):
    unit = parts.layers["mid_block.resnets.0.conv1"]
    for channels_last in (False, True):
        clock = Clock(CPU, torch.float32, 1, channels_last=channels_last)
        pool = Pool({"a": (unit, None)}, clock, 10**6)
        first, second = pool.fill(unit.module), pool.fill(unit.module)
        assert first.weight.data_ptr() != second.weight.data_ptr()
        assert first.weight.shape == unit.module.weight.shape
        order = torch.channels_last if channels_last else torch.contiguous_format
        assert first.weight.is_contiguous(memory_format=order)
        assert bool(first(torch.randn(1, first.in_channels, 4, 4)).isfinite().all())
    assert unit.module.weight.is_meta


def test_the_constants_of_this_machine_are_sensible():
    machine = measure_machine(CPU, torch.float32)
    assert 1e8 < machine.flops_per_s < 1e14
    assert 1e7 < machine.bytes_per_s < 1e13
    assert 1e-8 < machine.kernel_s < 1e-2


def test_names():
    assert split_name("rtx-4090-bf16-b16") == ("rtx-4090", "bfloat16", 16)
    for name in ("h100", "h100-b8", "h100-fp16", "h100-fp8-b1", "h100-fp16-b0", "-fp16-b1"):
        with pytest.raises(DistilleryError, match="a table is named"):
            split_name(name)


def test_what_is_not_there_is_named(parts, table):
    with pytest.raises(DistilleryError, match=r"no layer linear 1>2 @3; time this architecture"):
        table.layer_s("linear 1>2 @3")
    with pytest.raises(DistilleryError, match="run `distillery latency`, or choose one of h100"):
        predicted_by_name(parts, "tpu-fp16-b1")
    assert predicted_by_name(parts, "h100-fp16-b1").multiple_of == 64
    with pytest.raises(DistilleryError, match="runtime graph needs a CUDA device"):
        Clock(CPU, torch.float32, 1, "graph").check()
    with pytest.raises(DistilleryError, match="runtime 'fast'"):
        Clock(CPU, torch.float32, 1, "fast").check()


def test_the_command_writes_a_table_for_each_batch_size(tmp_path, capsys):
    path = tmp_path / "tables.json"
    arguments = ["--preset", "scenes", "--device", "h100", "--dtype", "fp16", "--batch", "1,8,1"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["latency", *arguments, "--json", str(path)])
    assert stopped.value.code == 0
    assert [t.name for t in read_tables(path)] == ["h100-fp16-b1", "h100-fp16-b8"]
    printed = capsys.readouterr().out
    assert "h100-fp16-b8, predicted" in printed
    assert "of dense" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cuda"], "no CUDA device here"),
        (["--device", "tpu"], "nothing is known of it"),
        (["--dtype", "fp8"], "--dtype fp8: use one of"),
        (["--batch", "0"], "--batch: '0' is not a number"),
        (["--resolution", "100"], "use a multiple of 16"),
        (["--runtime", "graph"], "needs a CUDA device"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["latency", "--preset", "scenes", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_the_text_adds_up_where_parts_alone_took_longer(table, parts):
    def longer(spread):
        return {"median_s": 3 * spread["median_s"]}

    layers = {key: {f: longer(s) for f, s in forms.items()} for key, forms in table.layers.items()}
    blocks = {key: longer(spread) for key, spread in table.blocks.items()}
    slow = replace(table, basis="measured", layers=layers, blocks=blocks)
    shares = re.findall(r"ms, (-?[0-9.]+) of dense", as_text([slow], parts))
    assert len(shares) == 2
    assert all(float(share) >= 0 for share in shares)
