"""The claims as the pages show them: in groups, counted, and where this run comes out otherwise.

In: judged claims (`claims`), the committed results. Out: dicts for the templates, rows of a table.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distillery.report.claims import VERDICTS
from distillery.report.evidence import Results

COLUMNS = (
    "id", "source", "statement", "paper", "kind", "verdict", "ours", "ci_low", "ci_high", "n",
    "seeds", "basis", "scope", "this_run", "this_run_ci_low", "this_run_ci_high",
    "this_run_verdict", "how",
)  # fmt: skip
_DECIDED = ("holds", "fails", "tie")

Claim = Mapping[str, Any]


def ledger(claims: Sequence[Claim], committed: Results | None) -> dict[str, Any]:
    """What both pages with claims are made of."""
    about = (
        f"Judged on {len(committed.seeds)} training seeds of {committed.setting}, committed on "
        f"{committed.date} ({committed.machine}); this run's numbers stand beside."
        if committed
        else "Statistical claims need three training seeds, and no such results are committed yet."
    )
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(claim["source"].split(",")[0], []).append(claim)
    own = [claim["this_run"]["verdict"] for claim in claims if claim["this_run"]]
    return {
        "claims": claims,
        "claims_about": about,
        "claim_groups": [
            {"name": name, "claims": group, "tally": _tally(c["verdict"] for c in group)}
            for name, group in groups.items()
        ],
        "tally": _tally(claim["verdict"] for claim in claims),
        "own_tally": _tally(own),
        "changed": changed(claims),
    }


def changed(claims: Sequence[Claim]) -> list[Claim]:
    """Claims on which this run and the committed results differ, the plainest differences first."""
    other = [
        claim
        for claim in claims
        if claim["this_run"]
        and claim["verdict"] in _DECIDED
        and claim["this_run"]["verdict"] in _DECIDED
        and claim["verdict"] != claim["this_run"]["verdict"]
    ]
    return sorted(
        other, key=lambda claim: "tie" in (claim["verdict"], claim["this_run"]["verdict"])
    )


def _tally(verdicts: Iterable[str]) -> dict[str, int]:
    counts = Counter(verdicts)
    return {verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]}


def rows(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """One row a claim, with `COLUMNS`."""
    return [_row(claim) for claim in claims]


def _row(claim: Claim) -> dict[str, Any]:
    own = claim["this_run"] or {"ours": None, "ci": None, "verdict": ""}
    judged, here = claim["ci"] or ("", ""), own["ci"] or ("", "")
    row = {name: claim[name] for name in COLUMNS if name in claim and name != "this_run"}
    return row | {
        "ci_low": judged[0],
        "ci_high": judged[1],
        "seeds": " ".join(map(str, claim["seeds"])),
        "this_run": own["ours"],
        "this_run_ci_low": here[0],
        "this_run_ci_high": here[1],
        "this_run_verdict": own["verdict"],
    }
