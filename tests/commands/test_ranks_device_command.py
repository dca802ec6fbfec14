"""`distillery ranks --device`: plans for a device, in the user's units, within all targets."""

import functools
import json
import re
from collections.abc import Iterator

import numpy as np
import pytest

from distillery import cli
from distillery.commands import latency, ranks, ranks_device
from distillery.commands.amounts import amount, at_least
from distillery.commands.latency import load_parts, parts_of
from distillery.core.errors import DistilleryError
from distillery.cost.latency.make import predict_table
from distillery.cost.latency.roofline import Machine
from distillery.cost.latency.table import write_form
from distillery.cost.latency.units import Anatomy


@pytest.fixture(scope="module", autouse=True)
def opened_once() -> Iterator[None]:
    """An architecture is opened and taken apart for the first command that asks for it."""
    apart: dict[tuple, Anatomy] = {}

    def known_parts(models: dict, *resolution: int | None) -> Anatomy:
        key = (id(models["unet"]), *resolution)
        if key not in apart:
            apart[key] = parts_of(models, *resolution)
        return apart[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks_device, "load_parts", functools.cache(load_parts))
        patch.setattr(ranks_device, "parts_of", known_parts)
        yield


@pytest.fixture(scope="module")
def device(tmp_path_factory) -> list[str]:
    """A device that is bound by its memory, on which small layers are fast."""
    parts = parts_of(load_parts("scenes"))
    table = predict_table(
        parts, Machine(1e10, 1e9, 1e-7), name="toy-fp32-b1", multiple_of=8, dtype="float32",
        batch_size=1,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tables") / "toy.json"
    path.write_text(json.dumps(write_form([table])))
    return ["ranks", "--preset", "scenes", "--device", str(path)]


def run(arguments, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    printed = capsys.readouterr()
    return stopped.value.code, printed.out, printed.err


def test_the_json_says_every_layer(device, capsys, tmp_path):
    out = tmp_path / "plan.json"
    targets = ["--target-share", "0.95", "--target-unet", "1M"]
    code, printed, _ = run([*device, *targets, "--json", "--out", str(out)], capsys)
    assert code == 0
    said = json.loads(printed)
    assert said == json.loads(out.read_text())
    assert said["planned"]["share"] <= 0.95 + 1e-9
    assert said["planned"]["parameters"] <= 1e6
    for row in said["layers"]:
        assert set(row) == {"name", "form", "rank"}
        assert row["form"] in ("dense", "low_rank", "removed")
        if row["form"] == "low_rank":
            assert row["rank"] % 8 == 0
            assert said["ranks"][row["name"]] == row["rank"]
    assert said["table"]["basis"] == "predicted"
    assert said["given"] == {"--target-share": "0.95", "--target-unet": "1M"}


def test_the_text_shows_the_rivals(device, capsys):
    code, printed, _ = run([*device, "--target-share", "0.9"], capsys)
    assert code == 0
    for words in ("toy-fp32-b1, predicted", "this plan", "uniform rule", "block removal alone",
                  "blocks removed: none", "give --teacher FOLDER --cache FOLDER"):  # fmt: skip
        assert words in printed


def _require_one_line(arguments, message, capsys) -> None:
    code, _, err = run(arguments, capsys)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["--target-unet", "1k"], "--target-unet 1k is out of reach: this U-Net allows"),
        (["--target-total", "1k"], "--target-total 1k: text encoder and VAE alone have"),
        (["--target-unet", "lots"], "--target-unet: 'lots' is no amount above 0"),
        ([], "--device: give a target too"),
        (["--target-ms", "1", "--cache", "c"], "--cache: give --teacher FOLDER too"),
        (["--target-ms", "8M"], "--target-ms: '8M' is no amount above 0; write it like 14.5"),
        (["--target-share", "0.01"], "with --teacher FOLDER --cache FOLDER blocks may go"),
        (["--target-share", "2"], "--target-share 2: a share of the dense U-Net's time"),
    ],
)
def test_bad_targets_are_one_line_in_the_users_unit(device, targets, message, capsys):
    _require_one_line([*device, *targets], message, capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--preset", "scenes", "--device", "h100-fp32-b1", "--target-ms", "0.0001"],
            "--target-ms 0.0001 ms is out of reach: this U-Net",
        ),
        (
            ["--device", "cpu-fp32-b9", "--tables", "nowhere", "--target-ms", "1"],
            "--tables nowhere is not there",
        ),
        (["--preset", "scenes", "--target-ms", "1"], "--target-ms: give --device NAME"),
        (
            ["--preset", "scenes", "--target-unet", "1k"],
            "--target-unet 1k: out of reach: rank 1 in every layer takes 0.",
        ),
    ],
)
def test_so_are_those_of_a_named_device_and_of_none(arguments, message, capsys):
    _require_one_line(["ranks", *arguments], message, capsys)


def test_reach_is_checked_before_anything_is_measured(device, capsys, monkeypatch):
    monkeypatch.setattr(ranks_device, "_errors", lambda *_: pytest.fail("measured"))
    places = ["--teacher", "data/scenes-sd", "--cache", "elsewhere"]
    message = "--target-share 0.01 of"
    _require_one_line([*device, *places, "--target-share", "0.01"], message, capsys)


def test_targets_without_a_device_understand_suffixes(capsys):
    code, printed, _ = run(
        ["ranks", "--preset", "sd21", "--target-total", "790M", "--json"], capsys
    )
    assert code == 0
    said = json.loads(printed)
    assert 0.99 * 790e6 < said["components"]["total"]["after"] <= 790e6
    ranks = {row["name"]: row["rank"] for row in said["layers"] if row["form"] == "low_rank"}
    assert ranks == said["ranks"]


def test_a_time_is_written_without_unit():
    with pytest.raises(DistilleryError, match=r"'5s' is no amount .* like 14.5 \(milliseconds"):
        amount("5s", "--target-ms")


def test_amounts():
    assert amount("790M", "o") == amount("790e6", "o") == amount("0.79B", "o") == 790e6
    assert amount("2k", "o") == amount("2K", "o") == 2000
    assert amount("1.5T", "o") == 1.5e12
    assert amount(None, "o") is None
    assert amount(3.0, "o") == 3
    for text in ("", "M", "-3", "nan", "inf", "1X", "0"):
        with pytest.raises(DistilleryError, match="no amount above 0"):
            amount(text, "o")


def test_what_is_named_as_the_least_is_rounded_up():
    assert at_least(14.5, 4) == at_least(14.500000000000002, 4) == "14.5"
    assert at_least(14.5001, 4) == "14.51"
    for value in np.geomspace(1e-6, 1e6, 1000):
        assert value * (1 - 1e-8) <= float(at_least(value)) <= value * (1 + 1e-5)


def _goes_on(*_, **__):
    raise DistilleryError("within reach")


def test_the_least_that_is_named_can_be_had(device, capsys, monkeypatch):
    _, _, refusal = run([*device, "--target-share", "1e-4"], capsys)
    least = re.search(r"allows (\S+) of ", refusal)[1]
    monkeypatch.setattr(ranks_device, "_errors", _goes_on)
    _require_one_line([*device, "--target-share", least], "within reach", capsys)


def test_so_can_that_of_a_plan_without_a_device(capsys, monkeypatch):
    with pytest.raises(DistilleryError) as refused:
        ranks.plan("scenes", {"--target-unet": 1e3})
    least = re.search(r"takes (\S+M)", str(refused.value))[1]
    monkeypatch.setattr(ranks.rank_planner, "uniform_ranks", _goes_on)
    arguments = ["ranks", "--preset", "scenes", "--target-unet", least]
    _require_one_line(arguments, "within reach", capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "h100", "--runtime", "eager"], "--runtime eager: h100 is predicted, as a"),
        (["--device", "h100", "--channels-last"], "--channels-last: h100 is predicted, its"),
        (["--device", "cpu", "--predict", "--runtime", "eager"], "--runtime eager: cpu is"),
    ],
)
def test_latency_refuses_what_a_prediction_cannot_follow(options, message, monkeypatch, capsys):
    monkeypatch.setattr(latency, "measure_machine", lambda *_: Machine(1e10, 1e9, 1e-7))
    _require_one_line(["latency", "--preset", "scenes", *options], message, capsys)


def test_a_known_device_is_predicted_as_a_graph(monkeypatch):
    monkeypatch.setattr(latency.make, "predict_table", lambda *_, name, **__: name)
    for runtime in (None, "graph"):
        assert latency.measure("scenes", device="h100", runtime=runtime) == ["h100-fp32-b1"]
