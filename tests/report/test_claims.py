import json
from dataclasses import replace
from pathlib import Path

import pytest
from fake_run import CONTROLLED, GUIDED, MODELS, OF_TOWER, committed, make_run, metric, per_image

from distillery.core.errors import DistilleryError
from distillery.params.presets import load_preset
from distillery.report.claims import judge_all, read_claims
from distillery.report.evidence import (
    COMPARISONS,
    Results,
    judged_on,
    read_committed,
    read_run,
)
from distillery.report.full_size import read_full_size
from distillery.report.tables import read_papers
from project import ROOT

CONTRACT = {
    "id", "source", "statement", "paper", "ours", "ci", "seeds", "kind", "basis", "scope",
    "verdict", "how",
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("claims")
    make_run(root)
    return root


def _judge(root: Path, committed: Results | None = None) -> dict[str, dict]:
    run = read_run(root / "metrics", "scenes", (0,))
    chosen = [committed] if committed else read_committed(root / "results")
    full_size = read_full_size(run, root / "results")
    return {claim["id"]: claim for claim in judge_all(run, chosen, full_size)}


def test_every_claim_follows_the_contract(root: Path):
    claims = _judge(root)
    assert len(claims) == len(read_claims())
    for claim in claims.values():
        assert set(claim) >= CONTRACT
        assert claim["verdict"] in ("holds", "fails", "tie", "not measured")
        assert claim["basis"] in ("measured", "counted", "predicted")


def test_verdicts_follow_from_the_intervals(root: Path):
    claims = _judge(root)
    assert claims["elr-distillation-clip"]["verdict"] == "holds"
    assert claims["distillation-alone-kid"]["verdict"] == "tie"
    assert claims["distillation-alone-kid"]["seeds"] == [0, 1, 2]
    assert claims["distillation-alone-kid"]["scope"] == "committed three-seed run"
    assert claims["distillation-alone-kid"]["this_run"]["ours"] is not None


def test_a_claim_fails_when_the_numbers_say_the_opposite(root: Path):
    chosen = judged_on(read_committed(root / "results"))
    swapped = dict(chosen.metrics)
    swapped["unet/elr"], swapped["unet/svd_only"] = swapped["unet/svd_only"], swapped["unet/elr"]
    claims = _judge(root, replace(chosen, metrics=swapped))
    assert claims["distillation-beats-start"]["verdict"] == "fails"
    assert claims["distillation-beats-start"]["ours"] > 0


def test_exact_claims_are_counted_and_have_no_width(root: Path):
    claim = _judge(root)["elr-parameters"]
    assert claim["verdict"] == "holds"
    assert claim["ci"] == [claim["ours"], claim["ours"]]
    assert claim["ours"] == pytest.approx(1 - 788_273_515 / 1_289_952_427, rel=1e-5)
    assert claim["basis"] == "counted"


def test_a_deleted_file_makes_its_claims_not_measured(tmp_path: Path):
    make_run(tmp_path)
    (tmp_path / "metrics" / "profile.json").unlink()
    (tmp_path / "metrics" / "unet" / "svd_only.json").unlink()
    claims = _judge(tmp_path)
    assert claims["elr-parameters"]["verdict"] == "not measured"
    assert claims["distillation-beats-start"]["this_run"]["verdict"] == "not measured"
    assert claims["distillation-beats-start"]["verdict"] == "holds"
    next((tmp_path / "results").glob("*.json")).unlink()
    claims = _judge(tmp_path)
    statistical = [claim for claim in claims.values() if claim["scope"].startswith("committed")]
    assert {claim["verdict"] for claim in statistical} == {"not measured"}
    assert all(claim["ours"] is None and claim["reason"] for claim in statistical)


def test_results_with_fewer_than_three_seeds_do_not_judge(tmp_path: Path):
    committed(tmp_path, "2026-02-01", seeds=(0, 1))
    assert judged_on(read_committed(tmp_path)) is None
    committed(tmp_path, "2026-01-01")
    committed(tmp_path, "2026-01-03")
    assert judged_on(read_committed(tmp_path)).date == "2026-01-03"


def test_a_comparison_judges_its_own_claims_and_no_other(root: Path):
    everything = read_committed(root / "results")
    before = _judge(root)
    values = {"planned_50": 0.02, "by_parameters_50": 0.1, "removal_50": 0.03}
    metrics = {
        f"unet/{name}": {"metrics": {"prediction_distance": metric(value, 0.001, [0, 1, 2])}}
        for name, value in {**values, "elr": 9.0}.items()
    }
    newer = replace(everything[-1], setting="scenes-latency", metrics=metrics, date="2026-09-09")
    run = read_run(root / "metrics", "scenes", (0,))
    full_size = read_full_size(run, root / "results")
    claims = {c["id"]: c for c in judge_all(run, [*everything, newer], full_size)}
    verdicts = {name: c["verdict"] for name, c in claims.items() if name.startswith("half-")}
    assert verdicts == {
        "half-latency-by-parameters": "holds",
        "half-latency-removal": "fails",
        "half-latency-random-removal": "not measured",
    }
    others = {name for name in claims if not name.startswith("half-")}
    assert {name: claims[name] for name in others} == {name: before[name] for name in others}
    assert all(before[name]["verdict"] == "not measured" for name in verdicts)


def test_a_predicted_value_never_decides(root: Path):
    chosen = judged_on(read_committed(root / "results"))
    metrics = json.loads(json.dumps(dict(chosen.metrics)))
    for one in metrics["unet/elr"]["metrics"].values():
        one["settings"]["basis"] = "predicted"
    claims = _judge(root, replace(chosen, metrics=metrics))
    assert claims["elr-distillation-clip"]["verdict"] == "not measured"
    assert claims["elr-distillation-clip"]["basis"] == "predicted"


def test_results_without_the_contract_are_refused(tmp_path: Path):
    (tmp_path / "x.json").write_text('{"date": "2026-01-01"}')
    with pytest.raises(DistilleryError, match="collect"):
        read_committed(tmp_path)
    assert read_committed(tmp_path / "nowhere") == []


def test_rules_name_models_and_metrics_that_exist():
    own = {name for name in (*MODELS, *CONTROLLED, *GUIDED) if name.startswith("teacher/")}
    full = load_preset(ROOT / "presets/scenes-full.yaml", ROOT / "params.yaml")
    own |= {f"unet/{name}" for name in full.distill_unet.variants}
    compared = {
        name: load_preset(ROOT / f"presets/{name}.yaml", ROOT / "params.yaml").distill_unet.variants
        for name in COMPARISONS
    }
    own |= {f"control/{name}" for name in full.finetune_control.variants}
    own |= {f"controlnet/{name}" for name in full.distill_controlnet.variants}
    own |= {f"guidance/{name}" for name in full.distill_guidance.variants}
    own |= {f"whole/{name}" for name in full.generate.whole}
    size = {
        m for table in read_papers().values() for ms in table["counted_as"].values() for m in ms
    }
    size |= {f"sd15/guidance/teacher_{kind}" for kind in ("two_calls", "batched")}
    size |= {f"{start}whole/{name}" for start in ("", "sd21/") for name in ("student", "teacher")}
    size |= {"guidance/lora_distill", "guidance/teacher_two_calls"}
    for claim in read_claims():
        if claim["rule"] is None:
            assert claim["reason"]
            continue
        model = claim["rule"]["model"]
        models = {claim["rule"]["than"], *([model] if isinstance(model, str) else model)}
        is_full = claim["kind"] == "exact" or "at" in claim["rule"]
        wanted = size if is_full else own
        if preset := claim["rule"].get("preset"):
            wanted = {f"unet/{name}" for name in compared[preset]}
        assert models <= wanted, claim["id"]
    assert len({claim["id"] for claim in read_claims()}) == len(read_claims())


def test_paired_values_decide_where_intervals_overlap(root: Path):
    chosen = judged_on(read_committed(root / "results"))
    name = "control-kept-edge-f1"
    metrics = json.loads(json.dumps(dict(chosen.metrics)))
    for values in metrics.values():
        values.pop("per_image", None)
    apart = _judge(root, replace(chosen, metrics=metrics))[name]
    assert (apart["verdict"], apart["interval"]) == ("tie", "two independent estimates")
    for variant in ("control/elr_dense", "control/uni_controlnet"):
        metrics[variant]["per_image"] = per_image({"edge_f1": CONTROLLED[variant][0]}, [0, 1, 2])
    paired = _judge(root, replace(chosen, metrics=metrics))[name]
    assert (paired["verdict"], paired["interval"]) == ("holds", "paired over images")
    assert paired["ours"] == pytest.approx(0.65 - 0.95 * 0.66, abs=0.01)
    assert paired["ci"][1] - paired["ci"][0] < 0.5 * (apart["ci"][1] - apart["ci"][0])


def test_a_claim_about_several_models_is_that_of_the_weakest(root: Path):
    claim = _judge(root)["controlnet-nearer-lpips"]
    assert [one["label"] for one in claim["each"]] == [
        "Reduced channel", "Reduced layer", "Modulated", "LoHa",
    ]  # fmt: skip
    assert claim["verdict"] == "tie"
    assert claim["each"][0]["verdict"] == "holds"
    assert claim["ours"] == max(one["ours"] for one in claim["each"] if one["verdict"] == "tie")


def test_full_size_measurements_decide_and_predictions_do_not(root: Path):
    claims = _judge(root)
    assert claims["control-memory"]["verdict"] == "holds"
    assert claims["control-memory"]["ours"] == pytest.approx(0.55)
    assert claims["control-memory"]["setting"] == "sd15-cuda"
    assert claims["guidance-memory-lora-distill"]["verdict"] == "holds"
    predicted = claims["guidance-memory-lora-finetune"]
    assert (predicted["verdict"], predicted["ours"]) == ("not measured", None)
    assert "predicted" in predicted["reason"]
    assert claims["control-parameters"]["ours"] == pytest.approx(0.574498, rel=1e-4)
    assert claims["control-parameters"]["verdict"] == "holds"
    assert claims["control-parameters-table2"]["verdict"] == "not measured"


def _with_probe(chosen: Results, accuracy: float | None) -> Results:
    metrics = json.loads(json.dumps(dict(chosen.metrics)))
    for values in metrics.values():
        for one in values["metrics"].values():
            if "shape_probe" in one["settings"]:
                one["settings"]["shape_probe"] = accuracy
    return replace(chosen, metrics=metrics)


def test_scores_of_a_clip_that_does_not_see_shapes_decide_nothing(root: Path):
    """Below 0.9, and where nobody measured it; from 0.9 on they decide as ever."""
    chosen = judged_on(read_committed(root / "results"))
    before = _judge(root)
    assert _judge(root, _with_probe(chosen, 0.9)) == before
    for accuracy, reason in ((0.89, "finds 0.890 of the shapes"), (None, "is recorded")):
        claims = _judge(root, _with_probe(chosen, accuracy))
        for claim in claims.values():
            is_score = claim.get("metric", "").startswith(OF_TOWER)
            if is_score and before[claim["id"]]["ours"] is not None:
                assert claim["verdict"] == "not measured"
                assert claim["ours"] is None
                assert reason in claim["reason"]
                assert claim["this_run"] == before[claim["id"]]["this_run"]
            else:
                assert claim == before[claim["id"]]


def test_claims_about_control_stand_beside_the_uncontrolled_teacher(root: Path):
    claims = _judge(root)
    beside = claims["control-kept-edge-f1"]["uncontrolled"]
    assert (beside["value"], beside["n"]) == (pytest.approx(0.121, abs=1e-3), 256)
    assert beside["ci_low"] < beside["value"] < beside["ci_high"]
    for name, claim in claims.items():
        is_control = str(claim.get("compares", "")).startswith(("['control", "['whole"))
        known = claim.get("metric") in ("edge_f1", "miou", "sketch_clip_score", "clip_score")
        if is_control and known and claim["ours"] is not None:
            assert "uncontrolled" in claim, name
    assert "uncontrolled" not in claims["elr-distillation-clip"]


def test_claims_that_nothing_could_decide_say_why(root: Path):
    claim = _judge(root)["control-inception"]
    assert claim["verdict"] == "not measured"
    assert "prints no Inception Score" in claim["reason"]
