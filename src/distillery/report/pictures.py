"""Images for the page, small and inside it.

In: encoded images, curated and rejected rows. Out: data URIs. Images up to 128 px stay PNG, larger
ones become WebP of at most 320 px. Undecodable and unsafe images are never embedded. Not here: how
they are laid out, models' images (`gallery`).
"""

import base64
import io
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from distillery.core.artifacts import read_json
from distillery.core.shards import read_table_shard
from distillery.data.images import UndecodableError, decode_rgb

PLAIN_PX, MAX_PX, THUMBNAIL_PX = 128, 320, 96
EXAMPLES_PER_REASON = 4
FAILED_REASONS = ("unreadable", "not_downloaded")
WITHHELD = ("punsafe", "unsafe", "blocklist")


def data_uri(encoded: bytes) -> str:
    """A PNG as it is where it is small, else a smaller WebP."""
    image = Image.open(io.BytesIO(encoded))
    if max(image.size) <= PLAIN_PX and image.format == "PNG":
        return _uri(encoded, "png")
    return _webp(image.convert("RGB"), MAX_PX)


def _webp(image: Image.Image, max_px: int) -> str:
    image.thumbnail((max_px, max_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=82, method=4)
    return _uri(buffer.getvalue(), "webp")


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def read_rejected(curated: Path, selection: Path) -> list[dict[str, Any]]:
    """Per reason, most frequent first: how many, examples with caption, detail and thumbnail."""
    funnel = read_json(selection / "funnel.json")
    counts = funnel["failed"] | funnel["rejected"]
    examples = _filtered_examples(curated) | _duplicate_examples(curated, selection)
    return [
        {"reason": reason, "count": count, "examples": examples.get(reason, [])}
        for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if count
    ]


def _filtered_examples(curated: Path) -> dict[str, list[dict[str, Any]]]:
    examples: dict[str, list[dict[str, Any]]] = {}
    for shard in sorted(curated.glob("*/rejected/[0-9]*.parquet")):
        for row in read_table_shard(shard):
            kept = examples.setdefault(row["reason"], [])
            if len(kept) < EXAMPLES_PER_REASON:
                kept.append(_example(row, row["reason"], row["detail"]))
    return examples


def _duplicate_examples(curated: Path, selection: Path) -> dict[str, list[dict[str, Any]]]:
    """Duplicates are found among curated images: show each with the copy that was kept."""
    chosen: dict[str, list[dict]] = {}
    for row in read_table_shard(selection / "rejected.parquet"):
        kept = chosen.setdefault(row["reason"], [])
        if len(kept) < EXAMPLES_PER_REASON:
            kept.append(row)
    keys = {row["key"] for rows in chosen.values() for row in rows}
    curated_rows = find_rows(curated, keys)
    return {
        reason: [
            _example(curated_rows[r["key"]], reason, f"same as {r['duplicate_of']}")
            for r in rows
            if r["key"] in curated_rows
        ]
        for reason, rows in chosen.items()
    }


def find_rows(curated: Path, keys: Collection[str]) -> dict[str, dict[str, Any]]:
    """Curated rows by key; reading stops when all are found."""
    left, rows = set(keys), {}
    for shard in _curated_shards(curated):
        if not left:
            break
        for row in read_table_shard(shard):
            if row["key"] in left:
                left.remove(row["key"])
                rows[row["key"]] = row
    return rows


def _curated_shards(curated: Path) -> Iterable[Path]:
    for part in sorted(p for p in curated.iterdir() if p.name.isdigit()):
        yield from sorted(part.glob("[0-9]*.parquet"))  # none where a part kept no image


def _example(row: Mapping[str, Any], reason: str, detail: str | None) -> dict[str, Any]:
    image = (row["image"] or {}).get("bytes")
    shown = image if reason not in (*FAILED_REASONS, *WITHHELD) else None
    return {
        "caption": row["caption"] or "",
        "detail": detail or "",
        "image": _thumbnail(shown) if shown else None,
        "withheld": reason in WITHHELD,
    }


def _thumbnail(encoded: bytes) -> str | None:
    """A small copy; these bytes were decoded in curation's guarded worker before."""
    try:
        return _webp(Image.fromarray(decode_rgb(encoded)), THUMBNAIL_PX)
    except (UndecodableError, OSError, ValueError):
        return None
