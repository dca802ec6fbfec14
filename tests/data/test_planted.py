"""Curation and deduplication of 1,000 scenes with planted, labelled defects, by the commands.

The truth about near-duplicates is decided by pixels: planted copies are duplicates, and so are
scenes drawn independently that coincide.
"""

from collections import defaultdict

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from data_helpers import make_params, run_to_selection

from distillery.core.shards import list_shards, read_table
from distillery.data.images import decode_rgb

NUM_SCENES = 1000
MORE_DEFECTS = 3  # than by default: more than half of the scenes have one
EXPECTED_REASONS = {
    "unsafe": "punsafe",
    "watermark": "pwatermark",
    "low_aesthetic": "aesthetic",
    "low_similarity": "similarity",
    "too_small": "resolution",
    "extreme_aspect": "aspect",
    "stock_host": "stock_host",
    "broken": "unreadable",
    "truncated": "unreadable",
    "empty_caption": "caption_empty",
    "spam_caption": "caption_spam",
    "exact_duplicate": "duplicate_bytes",
}
HARMLESS = ("wrong_extension", "mode_gray", "mode_rgba", "mode_palette", "mode_cmyk")


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    shares = make_params(root / "work", {}).ingest.scenes.defects
    scenes = {
        "num_scenes": NUM_SCENES, "seed": 7,
        "defects": {name: share * MORE_DEFECTS for name, share in shares.items()},
    }  # fmt: skip
    changes = {f"ingest.scenes.{name}": value for name, value in scenes.items()}
    return run_to_selection(make_params(root / "work", {"data.parts": [0], **changes}), root)


@pytest.fixture(scope="module")
def raw_rows(chain):
    rows = (row for path in list_shards(chain / "raw") for row in pq.read_table(path).to_pylist())
    return {row["key"]: row for row in rows}


@pytest.fixture(scope="module")
def curated(chain):
    return {row["key"]: row for row in read_table(chain / "curated" / "0")}


@pytest.fixture(scope="module")
def duplicates(chain):
    """{key that went: (reason, key that stays)}."""
    rows = pq.read_table(chain / "selection/rejected.parquet").to_pylist()
    return {row["key"]: (row["reason"], row["duplicate_of"]) for row in rows}


def test_planted_defects_are_all_found(chain, raw_rows, duplicates):
    found = {key: reason for key, (reason, _) in duplicates.items()}
    for row in read_table(chain / "curated" / "0" / "rejected"):
        found[row["key"]] = row["reason"]
    by_label = defaultdict(set)
    for key, row in raw_rows.items():
        by_label[row["planted"]].add(found.get(key))
    for label, reason in EXPECTED_REASONS.items():
        assert by_label[label] == {reason}, label
    for label in (*HARMLESS, None):
        assert by_label[label] <= {None, "near_duplicate"}, label


def test_resized_and_recompressed_scenes_are_found(raw_rows, duplicates, capsys):
    stays = {key: kept for key, (_, kept) in duplicates.items()}
    recall = {}
    for label in ("near_duplicate_jpeg", "near_duplicate_resize", "near_duplicate_crop"):
        pairs = [(k, row["planted_of"]) for k, row in raw_rows.items() if row["planted"] == label]
        assert len(pairs) >= 30
        recall[label] = np.mean([stays.get(a, a) == stays.get(b, b) for a, b in pairs])
    with capsys.disabled():
        print("recall:", ", ".join(f"{label} {value:.3f}" for label, value in recall.items()))
    assert recall["near_duplicate_jpeg"] >= 0.99
    assert recall["near_duplicate_resize"] >= 0.99
    assert recall["near_duplicate_crop"] >= 0.95


def coincide(first, second):
    """Whether one picture, resized to 64 px, is within 6 levels of a window of the other."""
    for whole, part in ((first, second), (second, first)):
        for height in range(56, 65):
            for width in range(56, 65):
                template = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
                scores = cv2.matchTemplate(whole, template, cv2.TM_SQDIFF) / template.size
                y, x = np.unravel_index(int(scores.argmin()), scores.shape)
                window = whole[y : y + height, x : x + width].astype(int)
                if np.abs(window - template).mean() <= 6:
                    return True
    return False


def test_what_goes_as_near_duplicate_is_one_by_its_pixels(raw_rows, curated, duplicates):
    origins = {key: row["planted_of"] or key for key, row in raw_rows.items()}
    near = {key: kept for key, (reason, kept) in duplicates.items() if reason == "near_duplicate"}
    chance = [(key, kept) for key, kept in near.items() if origins[key] != origins[kept]]
    assert len(near) - len(chance) > 100

    def pixels(key):
        image = decode_rgb(curated[key]["image"]["bytes"])
        return cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)

    def is_connected(key, kept):
        """Directly, or by another picture of the cluster."""
        others = [kept, *(k for k, best in near.items() if best == kept and k != key)]
        return any(coincide(pixels(key), pixels(other)) for other in others)

    wrong = [pair for pair in chance if not is_connected(*pair)]
    assert len(wrong) <= 0.01 * len(near)


def test_the_shipped_teachers_seeds_are_refused(tmp_path):
    from distillery.core.errors import DistilleryError
    from distillery.stages.ingest import ingest

    params = make_params(tmp_path / "work", {"ingest.scenes.seed": 1_000_000_000})
    with pytest.raises(DistilleryError, match="reserved for the shipped teacher"):
        ingest(params, raw=tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
