"""What every model made of the same prompts, beside the real image and the condition.

In: samples of all models, curated records, condition maps. Out: the gallery's data and strips of a
few prompts from it, images as data URIs. Not here: layout, thumbnails of rejected rows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distillery.core.shards import read_table
from distillery.data.conditions import KINDS
from distillery.families import OFFSET, STUDENTS, Family, family_of
from distillery.families.names import label
from distillery.report.evidence import Results
from distillery.report.pictures import data_uri, find_rows
from distillery.sampling.samples import read_samples, sample_folders

MAX_CHARS = 7_000_000
REAL, USED = "reference/real", "reference/condition"

Model = dict[str, Any]


def read_gallery(
    samples: Path,
    results: Results,
    num_samples: int,
    curated: Path | None = None,
    conditions: Path | None = None,
) -> dict[str, Any]:
    """{"prompts": [captions], "models": [{"id", "label", "family", "images", "conditions"}]}.

    All models answer the same prompts from the same noise; of several training seeds the first is
    shown. `images` holds a data URI per prompt or None, `conditions` the kind of condition that it
    was made from ("" without). Real images and condition maps are models of the family
    `reference`. There are fewer prompts than asked for where they would exceed 7 MB.
    """
    tables = _sample_tables(samples, results, num_samples)
    if not tables:
        return {"prompts": [], "models": []}
    captions = {row["key"]: row["caption"] for row in next(iter(tables.values())).values()}
    keys = list(captions)
    models = [_model(variant, rows, keys) for variant, rows in tables.items()]
    models = _references(models, keys, curated, conditions) + models
    count = _affordable(models, len(keys))
    for model in models:
        model["images"], model["conditions"] = model["images"][:count], model["conditions"][:count]
    return {"prompts": [captions[key] for key in keys[:count]], "models": models}


def _sample_tables(
    samples: Path, results: Results, num_samples: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """{variant: {key: row}} of every evaluated model that has samples here."""
    tables = {}
    for variant in results.variants():
        if variant.endswith(OFFSET) or not (samples / variant).is_dir():
            continue
        folder = next(iter(sample_folders(samples / variant).values()))
        tables[variant] = {row["key"]: row for row in read_samples(folder, num_samples)}
    return tables


def _model(variant: str, rows: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> Model:
    samples = [rows.get(key) for key in keys]
    return {
        "id": variant,
        "label": label(variant),
        "family": variant.partition("/")[0],
        "images": [data_uri(row["image"]) if row else None for row in samples],
        "conditions": [row["condition"] or "" if row else "" for row in samples],
    }


def _references(
    models: Sequence[Model], keys: Sequence[str], curated: Path | None, conditions: Path | None
) -> list[Model]:
    """The real images, every kind of condition that a model was given, and the one of each prompt
    that the multi-condition adapters took."""
    references = []
    if curated is not None:
        rows = find_rows(curated, keys)
        real = [data_uri(rows[key]["image"]["bytes"]) if key in rows else None for key in keys]
        references.append(_reference(REAL, "Real image", real, [""] * len(keys)))
    used = {kind for model in models for kind in model["conditions"] if kind}
    maps = {kind: _maps(conditions, kind, keys) for kind in KINDS if kind in used and conditions}
    for kind, images in maps.items():
        words = f"Condition: {KINDS[kind].words}"
        references.append(_reference(f"condition/{kind}", words, images, [kind] * len(keys)))
    mixed = next((m["conditions"] for m in models if _takes_any_kind(m["id"])), None)
    if mixed and maps:
        images = [maps[k][i] if k in maps else None for i, k in enumerate(mixed)]
        references.append(_reference(USED, "Condition given", images, mixed))
    return [model for model in references if any(model["images"])]


def _takes_any_kind(model: str) -> bool:
    """Whether a model's images are shown beside the condition of each prompt."""
    family = family_of(model)
    return bool(family and family.shown and USED in family.shown.strip)


def _reference(name: str, text: str, images: list, conditions: list[str]) -> Model:
    return {"id": name, "label": text, "family": "reference", "images": images,
            "conditions": list(conditions)}  # fmt: skip


def _maps(conditions: Path, kind: str, keys: Sequence[str]) -> list[str | None]:
    wanted, maps = set(keys), {}
    for folder in sorted(p for p in conditions.glob(f"*/{kind}") if p.is_dir()):
        for row in read_table(folder):
            if row["key"] in wanted:
                maps[row["key"]] = data_uri(row["image"]["bytes"])
    return [maps.get(key) for key in keys]


def _affordable(models: Sequence[Model], count: int) -> int:
    """How many prompts fit into the page."""
    per_prompt = [sum(len(m["images"][i] or "") for m in models) for i in range(count)]
    total = 0
    for index, size in enumerate(per_prompt):
        total += size
        if total > MAX_CHARS:
            return max(index, 1)
    return count


def strip(gallery: Mapping[str, Any], variants: Sequence[str], num_prompts: int) -> dict[str, Any]:
    """Rows of a few prompts: those of `variants` that are there, in that order."""
    by_id = {model["id"]: model for model in gallery["models"]}
    models = [by_id[variant] for variant in variants if variant in by_id]
    return {
        "prompts": gallery["prompts"][:num_prompts],
        "models": [
            {**{k: model[k] for k in ("id", "label")}, "images": model["images"][:num_prompts]}
            for model in models
        ],
    }


def hero_strip(gallery: Mapping[str, Any], num_prompts: int) -> dict[str, Any]:
    """The rows of the first screen: the teacher and the papers' students, a few prompts."""
    known = [model["id"] for model in gallery["models"]]
    wanted = next((f.shown.hero for f in STUDENTS.values() if _leads(f, known)), ())
    if len([variant for variant in wanted if variant in known]) < 2:
        wanted = [variant for variant in known if not variant.startswith("reference/")][:5]
    return strip(gallery, wanted, num_prompts)


def _leads(family: Family, known: Sequence[str]) -> bool:
    """Whether the first screen is about this family: its main student was drawn."""
    return bool(family.shown.hero) and family.shown.students[0] in known


def family_strip(gallery: Mapping[str, Any], family: Family, num_prompts: int) -> dict[str, Any]:
    """Condition, ground truth, teacher and every student of a family for the same noise; empty
    where the family has no images."""
    own = [model["id"] for model in gallery["models"] if model["family"] == family.name]
    return strip(gallery, (*family.shown.strip, *own) if own else (), num_prompts)
