"""The ledger of claims: each with its source, our number, and a verdict by a fixed rule.

In: `claims.yaml`, this run's results and the committed ones. Out: the list for `claims.json`.
Statistical claims are judged on committed results with at least three training seeds, exact ones
on counts; a predicted value never decides. Nothing here knows how a claim should come out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from distillery.report.evidence import COMMITTED, THIS_RUN, Results, label

VERDICTS = ("holds", "fails", "tie", "not measured")
CLAIMS_FILE = Path(__file__).with_name("claims.yaml")


def read_claims(path: Path = CLAIMS_FILE) -> list[dict[str, Any]]:
    """The claims with their rules, in the file's order."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def judge_all(run: Results, committed: Results | None) -> list[dict[str, Any]]:
    """Every claim of `claims.yaml`, judged."""
    return [judge(claim, run, committed) for claim in read_claims()]


def judge(claim: Mapping[str, Any], run: Results, committed: Results | None) -> dict[str, Any]:
    """One claim in the contract's form, with `this_run` beside a statistical one."""
    rule = claim["rule"]
    entry = {name: claim[name] for name in ("id", "source", "statement", "paper", "kind", "how")}
    entry |= {"metric": rule["metric"], "compares": [rule["model"], rule["than"]]}
    if claim["kind"] == "exact":
        return entry | {"scope": THIS_RUN, "this_run": None} | _reduction(rule, run)
    beside = _difference(rule, run)
    entry |= {"scope": COMMITTED, "this_run": {k: beside[k] for k in ("ours", "ci", "verdict")}}
    if committed is None:
        return entry | _nothing("no committed results with at least three training seeds")
    return entry | _difference(rule, committed) | {"date": committed.date}


def _difference(rule: Mapping[str, Any], results: Results) -> dict[str, Any]:
    """`model` minus `than`; its interval excludes zero just where the two intervals are apart."""
    a, b = (results.metric(rule[side], rule["metric"]) for side in ("model", "than"))
    for side, metric in (("model", a), ("than", b)):
        if metric is None:
            return _nothing(f"{label(rule[side])}: no {rule['metric']} here")
    ci = [a["ci_low"] - b["ci_high"], a["ci_high"] - b["ci_low"]]
    basis = _basis(a, b)
    return {
        "ours": _rounded(a["value"] - b["value"]),
        "ci": [_rounded(v) for v in ci],
        "values": {rule["model"]: a["value"], rule["than"]: b["value"]},
        "seeds": a["seeds"],
        "n": min(a["n"], b["n"]),
        "basis": basis,
        "verdict": _verdict(ci, rule["better"]) if basis != "predicted" else "not measured",
        "reason": None if basis != "predicted" else "a predicted value never decides",
    }


def _verdict(ci: list[float], better: str) -> str:
    low, high = ci if better == "higher" else (-ci[1], -ci[0])
    if low > 0:
        return "holds"
    return "fails" if high < 0 else "tie"


def _reduction(rule: Mapping[str, Any], results: Results) -> dict[str, Any]:
    """1 - model / than, against the printed share, to its printed precision."""
    a, b = (results.metric(rule[side], rule["metric"]) for side in ("model", "than"))
    if a is None or b is None:
        return _nothing("metrics/profile.json has no counts of it")
    share = _rounded(1 - a["value"] / b["value"])
    holds = abs(share - rule["reduction"]) <= rule["tolerance"]
    return {
        "ours": share,
        "ci": [share, share],
        "values": {rule["model"]: a["value"], rule["than"]: b["value"]},
        "seeds": [],
        "n": 1,
        "basis": _basis(a, b),
        "verdict": "holds" if holds else "fails",
        "reason": None,
    }


def _basis(*metrics: Mapping[str, Any]) -> str:
    """The weakest of the metrics' bases."""
    found = {metric["settings"].get("basis", "measured") for metric in metrics}
    return next(name for name in ("predicted", "measured", "counted") if name in found)


def _nothing(reason: str) -> dict[str, Any]:
    return {
        "ours": None, "ci": None, "values": {}, "seeds": [], "n": 0, "basis": "measured",
        "verdict": "not measured", "reason": reason,
    }  # fmt: skip


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
