"""The ledger of claims: each with its source, our number, and a verdict by a fixed rule.

In: `claims.yaml`, this run's results, the committed ones, profiles at full size. Out: the list for
`claims.json`. Statistical claims are judged on committed results with at least three training
seeds, exact ones on counts and on committed measurements at full size; a predicted value never
decides, nor a score of a teacher's CLIP whose linear probe is too low or not recorded. Nothing here
knows how a claim should come out.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distillery.families.names import UNCONTROLLED, label, takes_maps
from distillery.metrics.shape_probe import why_shut
from distillery.report.differences import difference
from distillery.report.evidence import COMMITTED, THIS_RUN, Metric, Results, judged_on
from distillery.report.full_size import FULL_SIZE, decides

VERDICTS = ("holds", "fails", "tie", "not measured")
CLAIMS_FILE = Path(__file__).with_name("claims.yaml")
_FIRST = {"fails": 0, "not measured": 1, "tie": 2, "holds": 3}

Claim = dict[str, Any]


def read_claims() -> list[Claim]:
    """The claims with their rules, in the file's order."""
    return yaml.safe_load(CLAIMS_FILE.read_text(encoding="utf-8"))


def judge_all(
    run: Results, committed: Sequence[Results], full_size: Sequence[Results] = ()
) -> list[Claim]:
    """Every claim of `claims.yaml`, judged; `committed` are all results under `docs/results`."""
    return [judge(claim, run, committed, full_size) for claim in read_claims()]


def judge(
    claim: Mapping[str, Any],
    run: Results,
    committed: Sequence[Results],
    full_size: Sequence[Results] = (),
) -> Claim:
    """One claim in the contract's form, with `this_run` beside a statistical one."""
    entry = {name: claim[name] for name in ("id", "source", "statement", "paper", "kind", "how")}
    if claim["rule"] is None:
        return entry | {"scope": THIS_RUN, "this_run": None} | nothing(claim["reason"])
    rule = claim["rule"]
    entry |= {"metric": rule["metric"], "compares": [rule["model"], rule["than"]]}
    if claim["kind"] == "exact" or "at" in rule:
        at = rule.get("at", FULL_SIZE)
        decided = _exact(rule, [run, *(size for size in full_size if decides(size, at))])
        return entry | {"scope": THIS_RUN, "this_run": None} | decided
    beside = _all_of(rule, lambda one: _compared(one, run))
    entry |= {"scope": COMMITTED, "this_run": {k: beside[k] for k in ("ours", "ci", "verdict")}}
    chosen = judged_on(committed, rule.get("preset"))
    if chosen is None:
        return entry | nothing("no committed results with at least three training seeds")
    decided = _all_of(rule, lambda one: _compared(one, chosen))
    return entry | decided | {"date": chosen.date}


def _all_of(rule: Mapping[str, Any], judge_one: Callable[[dict], Claim]) -> Claim:
    """A claim about several models holds if it holds for each; the least favourable one is shown
    beside the list of all, and one that fails decides."""
    if isinstance(rule["model"], str):
        return judge_one(dict(rule))
    each = [
        {**judge_one({**rule, "model": model}), "model": model, "label": label(model)}
        for model in rule["model"]
    ]
    weakest = min(each, key=lambda one: (_FIRST[one["verdict"]], _advantage(one, rule)))
    shown = ("model", "label", "ours", "ci", "verdict", "reason")
    kept = {k: v for k, v in weakest.items() if k not in ("model", "label")}
    return kept | {"each": [{k: one[k] for k in shown} for one in each]}


def _advantage(one: Claim, rule: Mapping[str, Any]) -> float:
    value = one["ours"] or 0.0
    return value if rule["better"] == "higher" else -value


def _compared(rule: Mapping[str, Any], results: Results) -> Claim:
    """`model` minus `factor` times `than`, judged by its interval (see `differences`)."""
    for side in ("model", "than"):
        if results.metric(rule[side], rule["metric"]) is None:
            return nothing(f"{label(rule[side])}: no {rule['metric']} here")
    a, b = (results.metric(rule[side], rule["metric"]) for side in ("model", "than"))
    if reason := why_shut(a["settings"]) or why_shut(b["settings"]):
        return nothing(reason)
    margin = difference(
        results, rule["model"], rule["than"], rule["metric"], rule.get("factor", 1.0)
    )
    basis = _basis(a, b)
    is_predicted = basis == "predicted"
    return {
        "ours": margin.value,
        "ci": [margin.low, margin.high],
        "interval": margin.kind,
        "values": {rule["model"]: a["value"], rule["than"]: b["value"]},
        "seeds": a["seeds"] if len(a["seeds"]) >= len(b["seeds"]) else b["seeds"],
        "n": margin.n,
        "basis": basis,
        "verdict": "not measured" if is_predicted else _verdict(margin, rule["better"]),
        "reason": "a predicted value never decides" if is_predicted else None,
        **_uncontrolled(rule, results),
    }


def _uncontrolled(rule: Mapping[str, Any], results: Results) -> Claim:
    """What the teacher reaches without any map, beside a claim about control."""
    metric = results.metric(UNCONTROLLED, rule["metric"])
    if not takes_maps(rule["model"]) or metric is None:
        return {}
    return {"uncontrolled": {key: metric[key] for key in ("value", "ci_low", "ci_high", "n")}}


def _verdict(margin: Any, better: str) -> str:
    low, high = (margin.low, margin.high) if better == "higher" else (-margin.high, -margin.low)
    if low > 0:
        return "holds"
    return "fails" if high < 0 else "tie"


def _exact(rule: Mapping[str, Any], places: Sequence[Results]) -> Claim:
    """A reduction, 1 - model / than, or a ratio, than / model, against a fixed bound."""
    pair, predicted = _first_pair(rule, places)
    if pair is None:
        reason = "a predicted value never decides" if predicted else "was not counted or measured"
        return nothing(f"{rule['metric']} of {rule['model']}: {reason}")
    a, b, where = pair
    share = _share(rule, a["value"], b["value"])
    low, high = sorted((_share(rule, a["ci_low"], b["ci_high"]),
                        _share(rule, a["ci_high"], b["ci_low"])))  # fmt: skip
    return {
        "ours": share,
        "is_ratio": _is_ratio(rule),
        "ci": [low, high],
        "values": {rule["model"]: a["value"], rule["than"]: b["value"]},
        "seeds": [],
        "n": 1,
        "basis": _basis(a, b),
        "setting": where.setting,
        "machine": where.machine,
        "date": where.date,
        "verdict": _exact_verdict(rule, low, high),
        "reason": None,
    }


def _exact_verdict(rule: Mapping[str, Any], low: float, high: float) -> str:
    if "at_least" in rule:
        if low >= rule["at_least"]:
            return "holds"
        return "fails" if high < rule["at_least"] else "tie"
    wanted = rule["reduction"] if "reduction" in rule else rule["ratio"]
    inside = [abs(value - wanted) <= rule["tolerance"] for value in (low, high)]
    return "holds" if all(inside) else "tie" if any(inside) else "fails"


def _share(rule: Mapping[str, Any], a: float, b: float) -> float:
    of = rule.get("factor", 1.0) * b
    return float(f"{of / a if _is_ratio(rule) else 1 - a / of:.6g}")


def _is_ratio(rule: Mapping[str, Any]) -> bool:
    return "ratio" in rule or rule.get("as") == "ratio"


def _first_pair(
    rule: Mapping[str, Any], places: Sequence[Results]
) -> tuple[tuple[Metric, Metric, Results] | None, bool]:
    """Both sides from one place, the first where neither is predicted; was one predicted?"""
    predicted = False
    for place in places:
        a, b = (place.metric(rule[side], rule["metric"]) for side in ("model", "than"))
        if a and b and "predicted" not in (_basis(a), _basis(b)):
            return (a, b, place), False
        predicted |= any(side and _basis(side) == "predicted" for side in (a, b))
    return None, predicted


def _basis(*metrics: Mapping[str, Any]) -> str:
    """The weakest of the metrics' bases."""
    bases = {metric["settings"].get("basis", "measured") for metric in metrics}
    return next(name for name in ("predicted", "measured", "counted") if name in bases)


def nothing(reason: str) -> Claim:
    """What stands for a number that is not there."""
    return {
        "ours": None, "ci": None, "values": {}, "seeds": [], "n": 0, "basis": "measured",
        "verdict": "not measured", "reason": reason,
    }  # fmt: skip
