"""Planted defects: labels, determinism, and that each defect is what its name says."""

import functools
import hashlib
import io
import json
import tarfile
from collections import Counter

import pyarrow.parquet as pq
import pytest
from PIL import Image

from distillery.core.errors import DistilleryError
from distillery.data.ingest.raw import write_raw_shards
from distillery.data.scenes.defect_kinds import DEFECTS
from distillery.data.scenes.defects import assign_defects, draw_samples

NUM_SCENES, SEED = 90, 5


def write_scenes(out):
    """Two shards of scenes with each defect; how many carry which."""
    labels = assign_defects(NUM_SCENES, SEED, dict.fromkeys(DEFECTS, 0.03))
    draw = functools.partial(draw_samples, labels=labels, seed=SEED, size_px=64)
    write_raw_shards(range(NUM_SCENES), out, 50, load=draw, keep_keys=True)
    return Counter(labels)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    out = tmp_path_factory.mktemp("shards")
    counts = write_scenes(out)
    rows = [
        row
        for name in ("00000", "00001")
        for row in pq.read_table(out / f"{name}.parquet").to_pylist()
    ]
    members = {}
    for name in ("00000", "00001"):
        with tarfile.open(out / f"{name}.tar") as tar:
            members |= {m.name: (m, tar.extractfile(m).read()) for m in tar.getmembers()}
    return out, counts, rows, members


def _image(row, members) -> bytes:
    names = [n for n in members if n.startswith(row["key"]) and n.count(".") == 1]
    [name] = [n for n in names if n.split(".")[1] not in ("txt", "json")]
    return members[name][1]


def _labels(row, members):
    return Image.open(io.BytesIO(members[f"{row['key']}.seg.png"][1]))


def _of(kind, rows):
    carriers = [row for row in rows if row["planted"] == kind]
    assert carriers
    return carriers


def test_counts_and_labels_agree(shards):
    _, counts, rows, members = shards
    assert len(rows) == NUM_SCENES
    for kind in DEFECTS:
        assert counts[kind] == len(_of(kind, rows)) == round(0.03 * 90)
    for row in rows:
        assert json.loads(members[f"{row['key']}.json"][1])["planted"] == row["planted"]
        assert members[f"{row['key']}.txt"][1].decode() == row["caption"]


def test_the_same_call_writes_the_same_bytes(shards, tmp_path):
    write_scenes(tmp_path)
    for path in sorted(shards[0].iterdir()):
        twin = (tmp_path / path.name).read_bytes()
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(twin).digest()
    assert {(m.mtime, m.uid, m.gid) for m, _ in shards[3].values()} == {(0, 0, 0)}


def test_duplicates_name_an_earlier_clean_original(shards):
    _, _, rows, members = shards
    by_key = {row["key"]: row for row in rows}
    for row in rows:
        assert (row["planted_of"] is not None) == ("duplicate" in (row["planted"] or ""))
        if row["planted_of"]:
            original = by_key[row["planted_of"]]
            assert original["planted"] is None
            assert original["key"] < row["key"]
            same = _image(original, members) == _image(row, members)
            assert same == (row["planted"] == "exact_duplicate")


def test_clean_records_decode_to_their_size_and_have_segmentation(shards):
    _, _, rows, members = shards
    for row in rows:
        if row["planted"] in ("broken", "truncated"):
            with pytest.raises(OSError, match=r"identify|truncated|decode|read|broken"):
                Image.open(io.BytesIO(_image(row, members))).load()
            continue
        image = Image.open(io.BytesIO(_image(row, members)))
        image.load()
        assert image.size == _labels(row, members).size


def test_scores_are_bad_only_where_planted(shards):
    _, _, rows, members = shards
    sizes = {row["key"]: _labels(row, members).size for row in rows}
    limits = {
        "unsafe": lambda row: row["punsafe"] >= 0.9,
        "watermark": lambda row: row["pwatermark"] >= 0.9,
        "low_aesthetic": lambda row: row["aesthetic"] < 6,
        "low_similarity": lambda row: row["similarity"] < 0.28,
        "too_small": lambda row: sizes[row["key"]][0] < 32,
        "extreme_aspect": lambda row: max(sizes[row["key"]]) >= 5 * 64,
        "stock_host": lambda row: "shutterstock" in row["url"],
        "empty_caption": lambda row: not row["caption"].strip(),
    }
    for kind, is_bad in limits.items():
        assert {row["key"] for row in rows if is_bad(row)} == {r["key"] for r in _of(kind, rows)}


def test_modes_and_formats_are_what_they_say(shards):
    _, _, rows, members = shards
    modes = {"mode_gray": "L", "mode_rgba": "RGBA", "mode_palette": "P", "mode_cmyk": "CMYK"}
    for kind, mode in modes.items():
        for row in _of(kind, rows):
            assert Image.open(io.BytesIO(_image(row, members))).mode == mode
    for row in _of("wrong_extension", rows):
        [name] = [n for n in members if n.startswith(row["key"]) and n.endswith((".jpg", ".png"))
                  and not n.endswith(".seg.png")]  # fmt: skip
        actual = Image.open(io.BytesIO(members[name][1])).format
        assert actual != {"jpg": "JPEG", "png": "PNG"}[name.rsplit(".")[-1]]


@pytest.mark.parametrize(
    ("defects", "message"),
    [({"rotten": 0.1}, "rotten"), ({"broken": 0.7, "unsafe": 0.6}, "sum to 1.3")],
)
def test_impossible_defects_are_refused(defects, message):
    with pytest.raises(DistilleryError, match=message):
        assign_defects(NUM_SCENES, SEED, defects)
