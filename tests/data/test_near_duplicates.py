"""Edited copies through the command `deduplicate`: what goes, what stays, and how it is counted."""

import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from data_helpers import make_params, run_to_selection, write_folder

from distillery.data.conditions.annotate import encode_png
from distillery.data.dedupe.phash import small_luma
from distillery.data.dedupe.windows import best_windows, sketch
from distillery.data.scenes.draw import draw_scene

CAPTION = "a large red circle"


def lit(image):
    return np.clip(image.astype(float) * 0.85, 0, 255).astype(np.uint8)


def grey(image):
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def bordered(image):
    return cv2.copyMakeBorder(image, 8, 8, 8, 8, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def watermarked(image):
    place = (60, 150)
    return cv2.putText(image.copy(), "(c)", place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255,) * 3, 1)


EDITS = {
    "cropped": lambda image: np.ascontiguousarray(image[4:-12, 10:-6]),
    "lit": lit,
    "grey": grey,
    "bordered": bordered,
    "watermarked": watermarked,
}


def select(root, images, **changes):
    """Run the data stages on {name: image}; {source: reason, or "kept"}, and the funnel."""
    samples = {f"{name}.png": (encode_png(image), CAPTION) for name, image in images.items()}
    settings = {
        "data.parts": [0],
        "ingest.source": "folder",
        "ingest.path": str(write_folder(root / "source", samples)),
        "deduplicate.split": {"val": 0.0, "test": 0.0},
        **changes,
    }
    run_to_selection(make_params(root / "work", settings), root)
    raw = pq.read_table(root / "raw/00000.parquet").to_pylist()
    gone = pq.read_table(root / "selection/rejected.parquet").to_pylist()
    reasons = {row["key"]: row["reason"] for row in gone}
    names = {row["key"]: row["source"].rsplit(":", 1)[-1].split("/")[-1] for row in raw}
    funnel = json.loads((root / "selection/funnel.json").read_text())
    return {names[row["key"]].split(".")[0]: reasons.get(row["key"], "kept") for row in raw}, funnel


@pytest.fixture(scope="module")
def pictures():
    return [draw_scene(5, index, 192).image for index in range(4)]


def test_edited_copies_go(pictures, tmp_path):
    images = {f"whole{i}": image for i, image in enumerate(pictures)}
    images |= {
        f"{name}{i}": edit(p) for name, edit in EDITS.items() for i, p in enumerate(pictures)
    }
    found, funnel = select(tmp_path, images)
    assert list(found.values()).count("kept") == len(pictures)
    assert funnel["rejected"] == {"near_duplicate": len(EDITS) * len(pictures)}


@pytest.mark.parametrize("choice", ["keep", "drop"])
def test_mirror_images_are_counted_apart(pictures, tmp_path, choice):
    image = pictures[0].copy()
    image[:, :60] = image[:, :60] // 2  # no picture is its own mirror image
    mirrored = np.ascontiguousarray(image[:, ::-1])
    images = {"a": image, "b": mirrored, "c": pictures[1]}
    _, funnel = select(tmp_path, images, **{"deduplicate.mirrored": choice})
    stay = pq.read_table(tmp_path / "selection/mirrored.parquet").num_rows
    rows = pq.read_table(tmp_path / "selection/selection.parquet").to_pylist()
    assert (funnel["kept"], stay) == ((3, 1) if choice == "keep" else (2, 0))
    assert funnel["rejected"] == ({} if choice == "keep" else {"mirrored": 1})
    assert len({row["cluster"] for row in rows}) == 2


def test_one_background_with_other_objects_is_many_pictures(tmp_path):
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(60, 200, (6, 6, 3)).astype(np.uint8), (192, 192))
    images = {}
    for i in range(8):
        centre, colour = rng.integers(40, 150, 2).tolist(), rng.integers(0, 256, 3).tolist()
        images[f"p{i}"] = cv2.circle(ground.copy(), centre, 25, colour, -1, cv2.LINE_AA)
    found, _ = select(tmp_path, images)
    assert set(found.values()) == {"kept"}


def test_proposals_do_not_depend_on_how_many_there_are(monkeypatch):
    """In a grid of cells as in one, so that a large collection has the pairs of a small one."""
    images = [draw_scene(2, index, 64).image for index in range(60)]
    images += [np.ascontiguousarray(image[3:-3, 2:-4]) for image in images]
    sketches = np.stack([np.frombuffer(sketch(i, small_luma(i)), np.uint8) for i in images])
    one = best_windows(sketches).tolist()
    assert len(one) > 60
    for name, number in (("_MAX_ROWS_OF_ONE_CELL", 1), ("_CHUNK_ROWS", 7)):
        monkeypatch.setattr(f"distillery.data.dedupe.windows.{name}", number)
        assert best_windows(sketches).tolist() == one
