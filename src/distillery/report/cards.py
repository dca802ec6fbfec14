"""A model card per trained model, as Markdown.

In: a run's metrics, training histories, data funnel and settings. Out: `<family>/<variant>.md`,
with what the README.md of the model's folder says and all that was measured, ready to take its
place. What was not measured is said to be missing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distillery.core.artifacts import read_json
from distillery.families import STUDENTS, Family
from distillery.families import card as model_card
from distillery.families.names import label
from distillery.metrics.catalog import label_of
from distillery.report import story
from distillery.report.evidence import Results
from distillery.report.prices import COSTS
from distillery.report.templating import environment

SIZES = ("parameters_unet", "parameters_adapter", "parameters_total", "bytes_on_disk", "macs")


def write_cards(
    folder: Path,
    run: Results,
    models: Path,
    selection: Path,
    facts: Sequence[tuple[str, Any]],
    whole: Mapping[str, Mapping[str, str]],
) -> int:
    """Write the cards of every evaluated student; returns how many there are.

    `whole` are the parts of the whole students, by variant.
    """
    template = environment(keep_trailing_newline=True).get_template("card.md")
    funnel = read_json(selection / "funnel.json")
    carded = [(f, variant) for f in STUDENTS.values() for variant in run.variants(f.name)]
    for family, variant in carded:
        path = folder / f"{variant}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = _settings(models, variant)
        if not family.stage:
            settings = _parts(models, whole.get(variant.partition("/")[2], {}))
        card = _card(family, variant, run, settings, funnel, dict(facts))
        path.write_text(template.render(card), encoding="utf-8")
    return len(carded)


def _card(
    family: Family,
    variant: str,
    run: Results,
    settings: Mapping[str, Any],
    funnel: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    source = facts.get("teacher", "teacher")
    return {
        "title": label(variant),
        "variant": variant,
        "family": family,
        "front_matter": model_card.front_matter(family.name, source),
        "snippet": model_card.snippet(variant, settings) if settings else "",
        "limits": model_card.LIMITS,
        "licence": model_card.licence(source),
        "facts": facts,
        "funnel": funnel,
        "settings": model_card.flat(settings) if family.stage else {},
        "probe": story.probe_line(run),
        "rows": _rows(family, variant, run),
        "sizes": _sizes(variant, run),
        "skipped": run.metrics[variant]["skipped"],
        "few_seeds": len(run.seeds) < 3,
        "teacher": label(family.shown.teacher),
    }


def _settings(models: Path, variant: str) -> dict[str, Any]:
    """Those of `training.json`; nothing where the model is not there."""
    training = models / variant / "training.json"
    return read_json(training)["settings"] if training.is_file() else {}


def _parts(models: Path, parts: Mapping[str, str]) -> dict[str, Any]:
    """What the snippet of a whole student needs; nothing where a part is not there."""
    lora = _settings(models, f"guidance/{parts.get('guidance')}")
    return {**parts, "lora": lora} if lora else {}


def _rows(family: Family, variant: str, run: Results) -> list[dict[str, str]]:
    rows = []
    for name, metric in sorted(run.metrics[variant]["metrics"].items()):
        theirs = run.metric(family.shown.teacher, name)
        rows.append(
            {
                "name": label_of(name),
                "value": f"{story.estimate(metric)} ({story.interval(metric)})",
                "teacher": story.estimate(theirs) if theirs else "—",
                "n": metric["n"],
                "seeds": len(metric["seeds"]),
            }
        )
    return rows


def _sizes(variant: str, run: Results) -> dict[str, str]:
    return {
        COSTS[name].label: story.pretty(name, metric)
        for name in SIZES
        if (metric := run.metric(variant, name))
    }
