"""The user's own condition maps: from columns and folders, through the commands of the stages."""

import io
import json
import unicodedata

import cv2
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_helpers import CAPTIONS, write_files, write_tar
from data_helpers import make_params, run_conditions, run_to_selection
from PIL import Image

from distillery.core.errors import DistilleryError
from distillery.core.shards import read_table
from distillery.data.conditions.own import LeftOut, OwnMaps, open_own
from distillery.data.conditions.reader import ConditionMaps
from distillery.data.images import decode_rgb
from distillery.data.ingest.readers.datasets import read_datasets
from distillery.stages.extract_conditions import extract_conditions

SIZES = [(96, 64), (64, 97), (75, 75), (65, 90), (64, 64), (91, 65)]  # width, height


def photo(index):
    """Smooth light with grain, portrait, landscape or odd, unlike the others."""
    rng, (width, height) = np.random.default_rng(index), SIZES[index]
    small = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(float)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def hand_made(index):
    """A person in front of a wall, as someone would paint its depth."""
    width, height = SIZES[index]
    depth = np.full((height, width), 40 + index, dtype=np.uint8)
    cv2.circle(depth, (width // 2, height // 3), height // 8, 220, -1)
    cv2.rectangle(depth, (width // 3, height // 2), (2 * width // 3, height), 200, -1)
    return depth


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PHOTOS, DEPTHS = [photo(i) for i in range(6)], [hand_made(i) for i in range(6)]
MADE = ("canny", "sketch", "segmentation")
LOOSE = {"curate.min_side_px": 32, "curate.max_aspect": 3.0, "data.parts": [0],
         "deduplicate.split": {"val": 0.0, "test": 0.0}}  # fmt: skip


def run_chain(tmp_path, source, path, place, capsys, **changes):
    """The stages from `ingest` to `extract_conditions`; maps by caption, counts, what was said."""
    params = make_params(
        tmp_path / "work",
        {**LOOSE, "ingest.source": source, "ingest.path": str(path),
         "extract_conditions.kinds": dict.fromkeys(MADE) | {"depth": place}, **changes},
    )  # fmt: skip
    root = run_to_selection(params, tmp_path)
    capsys.readouterr()
    run_conditions(params, root)
    captions = {row["key"]: row["caption"] for row in read_table(root / "curated/0")}
    maps = {
        captions[row["key"]]: decode_rgb(row["image"]["bytes"])
        for row in read_table(root / "conditions/0/depth")
    }
    counts = json.loads((root / "conditions/0/counts.json").read_text())
    assert counts["canny"] == {"maps": 6, "left_out": {}}
    return maps, counts["depth"], capsys.readouterr().err


def assert_maps(maps, but=()):
    assert set(maps) == {c for i, c in enumerate(CAPTIONS) if i not in but}
    for index, caption in enumerate(CAPTIONS):
        if index not in but:
            assert (maps[caption] == DEPTHS[index][:, :, None]).all()


def write_parquet(path, **columns):
    images = [{"bytes": png(p), "path": f"{i}.png"} for i, p in enumerate(PHOTOS)]
    pq.write_table(pa.table({"image": images, "text": CAPTIONS, **columns}), path)
    return path


def test_a_column_of_parquet_comes_through_and_who_lacks_it_is_counted(tmp_path, capsys):
    cells = [None if i == 2 else png(d) for i, d in enumerate(DEPTHS)]
    cells[4] = png(DEPTHS[4])[:60]
    column = "Tiefe übers Bild (cm)"
    path = write_parquet(tmp_path / "a.parquet", **{column: cells})
    place = {"from": f"column {column}"}
    maps, counts, said = run_chain(
        tmp_path, "parquet", path, place, capsys, **{"ingest.map_columns": [column]}
    )
    assert_maps(maps, but=(2, 4))
    assert counts["left_out"] == {"missing": 1, "unreadable": 1}
    assert counts["maps"] == 4
    assert "depth: 4 maps, 2 records are left out (missing 1, unreadable 1), first " in said


def test_a_column_of_a_data_set_comes_through(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    table = {
        "image": [{"bytes": png(p), "path": None} for p in PHOTOS],
        "text": CAPTIONS,
        "depth_map": [{"bytes": png(d), "path": None} for d in DEPTHS],
    }
    data = datasets.Dataset.from_dict(table)
    for name in ("image", "depth_map"):
        data = data.cast_column(name, datasets.Image())
    data.save_to_disk(tmp_path / "saved")
    maps, counts, _ = run_chain(
        tmp_path, "datasets", tmp_path / "saved", {"from": "column depth_map"}, capsys,
        **{"ingest.map_columns": ["depth_map"], "ingest.datasets.image_column": "image",
           "ingest.datasets.caption_column": "text", "ingest.datasets.split": "train"},
    )  # fmt: skip
    assert_maps(maps)
    assert counts == {"maps": 6, "left_out": {}}
    # what curation wrote is still a data set
    assert len(datasets.load_dataset(str(tmp_path / "curated/0"), split="train")) == 6


def test_further_images_of_a_tar_are_columns(tmp_path, capsys):
    members = {}
    for index, caption in enumerate(CAPTIONS):
        members |= {f"{index}.png": png(PHOTOS[index]), f"{index}.txt": caption.encode()}
        members |= {f"{index}.depth.png": png(DEPTHS[index]), f"{index}.junk.png": b"no"}
    write_tar(tmp_path / "shards/00000.tar", members)
    maps, _, _ = run_chain(
        tmp_path, "webdataset", tmp_path / "shards", {"from": "column depth"}, capsys,
        **{"ingest.map_columns": ["depth"]},
    )  # fmt: skip
    assert_maps(maps)


def test_a_folder_by_file_name_with_other_sizes_left_out(tmp_path, capsys):
    photos = {f"a/p{i}.png": png(p) for i, p in enumerate(PHOTOS)}
    texts = {f"a/p{i}.txt": c.encode() for i, c in enumerate(CAPTIONS)}
    write_files(tmp_path / "photos", photos | texts)
    depths = {f"a/p{i}.png": png(d) for i, d in enumerate(DEPTHS) if i != 3}
    depths["a/p1.png"] = png(DEPTHS[1][:, :-1])
    write_files(tmp_path / "maps", depths)
    place = {"from": f"folder {tmp_path / 'maps'}"}
    maps, counts, said = run_chain(tmp_path, "folder", tmp_path / "photos", place, capsys)
    assert_maps(maps, but=(1, 3))
    assert counts["left_out"] == {"missing": 1, "size": 1}
    assert "p1.png: 63 x 97 px, its image 64 x 97" in said or "no a/p3 or " in said
    reader = ConditionMaps(tmp_path / "conditions", ["canny", "depth"], 64)
    keys = [row["key"] for row in read_table(tmp_path / "curated/0")]
    present = reader.presence(keys)
    assert (int(present["canny"].sum()), int(present["depth"].sum())) == (6, 4)
    lost = next(key for key in keys if not reader.has("depth", key))
    assert not reader.batch([lost])["depth"].any()


def test_maps_that_were_resized_are_counted(tmp_path, capsys):
    cells = [None if i == 2 else png(d[:-1] if i == 4 else d) for i, d in enumerate(DEPTHS)]
    path = write_parquet(tmp_path / "a.parquet", depth_map=cells)
    place = {"from": "column depth_map", "resize": "nearest"}
    maps, counts, _ = run_chain(
        tmp_path, "parquet", path, place, capsys, **{"ingest.map_columns": ["depth_map"]}
    )
    assert maps[CAPTIONS[4]].shape == PHOTOS[4].shape
    assert (counts["maps"], counts["resized"], counts["left_out"]) == (5, 1, {"missing": 1})


def own(tmp_path, files, **source):
    write_files(tmp_path / "maps", files)
    return open_own({"depth": {"from": f"folder {tmp_path / 'maps'}", **source}})["depth"]


def test_sixteen_bits_are_scaled_and_never_clipped(tmp_path):
    ramp = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    grey = cv2.imencode(".png", ramp)[1]
    colour = cv2.imencode(".png", np.repeat(ramp[:, :, None], 3, axis=2))[1]
    tiff = cv2.imencode(".tiff", ramp)[1]
    files = {"grey.png": grey.tobytes(), "colour.png": colour.tobytes(), "t.tiff": tiff.tobytes()}
    maps = own(tmp_path, files)
    for name in ("grey", "colour", "t"):
        pixels = maps.read({"key": name, "name": None}, 32, 32)
        assert pixels.shape == (32, 32, 3)
        assert np.abs(pixels[:, :, 0].astype(float) - ramp / 257).max() <= 1


@pytest.mark.parametrize(("how", "levels"), [("nearest", {0, 200}), ("area", {0, 100, 200})])
def test_another_size_is_resized_when_asked_to(tmp_path, how, levels):
    halves = np.zeros((30, 30), dtype=np.uint8)
    halves[:, 15:] = 200
    maps = own(tmp_path, {"k.png": png(halves)}, resize=how)
    pixels = maps.read({"key": "k", "name": None}, 10, 6)
    assert pixels.shape == (10, 6, 3)
    small = maps.read({"key": "k", "name": None}, 5, 5)
    assert set(np.unique(small)) == levels


def test_maps_are_found_by_name_then_by_key_but_not_by_another_record_s(tmp_path):
    maps = own(tmp_path, {"b/kite.png": png(DEPTHS[0]), "000000004.png": png(DEPTHS[4])})
    assert maps.read({"key": "000000009", "name": "b/kite"}, 64, 96).shape == (64, 96, 3)
    assert maps.read({"key": "000000004", "name": "a/kite"}, 64, 64).shape == (64, 64, 3)
    with pytest.raises(LeftOut, match="no 000000005 in"):  # its own name is a number
        maps.read({"key": "000000004", "name": "000000005"}, 64, 64)
    with pytest.raises(LeftOut, match=r"kite\.png differs in upper and lower case"):
        maps.read({"key": "000000009", "name": "b/Kite"}, 64, 96)


def test_names_that_look_alike_are_alike_and_what_is_near_is_named(tmp_path):
    decomposed = unicodedata.normalize("NFD", "a/Gr\u00fcn")
    files = {f"{decomposed}.png": png(DEPTHS[0]), "a/b/kite.png": png(DEPTHS[0]), "c.npy": b"x"}
    files |= {"d/sea_depth_map.png": png(DEPTHS[1]), "depth-Hill 1.png": png(DEPTHS[1])}
    maps = own(tmp_path, files)
    assert maps.read({"key": "000000009", "name": "a/Gr\u00fcn"}, 64, 96).shape == (64, 96, 3)
    for name, said in (
        ("d/sea", r"sea_depth_map\.png has more in its name: rename such maps"),
        ("hill 1", r"depth-Hill 1\.png has more in its name"),
        ("d", r"no d or 000000009 in the folder$"),
        ("a/kite", r"a/b/kite\.png lies in another folder than the image"),
        ("c", r"c\.npy is no image file"),
        ("nothing", "no nothing or 000000009 in the folder$"),
    ):
        with pytest.raises(LeftOut, match=said):
            maps.read({"key": "000000009", "name": name}, 64, 96)


def test_what_is_transparent_is_nothing(tmp_path):
    limbs = np.zeros((8, 8, 4), np.uint8)
    limbs[2:4] = (200, 0, 0, 255)
    pixels = own(tmp_path, {"k.png": png(limbs)}).read({"key": "k", "name": None}, 8, 8)
    assert pixels[2, 0].tolist() == [200, 0, 0]
    assert not pixels[5:].any()


@pytest.mark.parametrize(("scale", "dark"), [(1, 1), (255, None)])
def test_maps_of_zeros_and_ones_are_told(tmp_path, capsys, scale, dark):
    cells = [png((d > 100).astype(np.uint8) * scale) for d in DEPTHS]
    path = write_parquet(tmp_path / "a.parquet", depth_map=cells)
    _, counts, said = run_chain(
        tmp_path, "parquet", path, {"from": "column depth_map"}, capsys,
        **{"ingest.map_columns": ["depth_map"]},
    )  # fmt: skip
    assert counts.get("brightest") == dark
    assert ("depth: no value is above 1 of 255" in said) == (dark is not None)


@pytest.mark.parametrize("cells", [["maps/a.png"] * 6, [[1, 2]] * 6, [1] * 6])
def test_a_column_that_holds_no_images_is_refused_by_name(tmp_path, capsys, cells):
    path = write_parquet(tmp_path / "a.parquet", depth_map=cells)
    with pytest.raises(DistilleryError, match=r"column depth_map of ingest\.map_columns holds .*"):
        run_chain(
            tmp_path, "parquet", path, {"from": "column depth_map"}, capsys,
            **{"ingest.map_columns": ["depth_map"]},
        )  # fmt: skip


def test_a_column_that_is_named_twice_or_is_the_image_is_refused(tmp_path):
    for columns, message in ((["a", "a"], "names a column twice"), (["Seg"], "Seg is what the")):
        with pytest.raises(ValueError, match=f"map_columns: {message}"):
            make_params(
                tmp_path,
                {"ingest.source": "parquet", "ingest.path": "x", "ingest.map_columns": columns},
            )
    datasets.Dataset.from_dict({"image": [png(PHOTOS[0])], "text": ["a"]}).to_parquet(
        tmp_path / "a.parquet"
    )
    rows = read_datasets(
        str(tmp_path / "a.parquet"), image_column="image", caption_column="text", split="train",
        map_columns=["image"],
    )  # fmt: skip
    with pytest.raises(DistilleryError, match="image is the image's column"):
        next(rows)


def test_a_column_without_bytes_is_a_missing_map():
    maps = open_own({"depth": {"from": "column depth_map"}})["depth"]
    row = {"key": "000000000", "maps": [{"column": "depth_map", "bytes": None}]}
    with pytest.raises(LeftOut, match="no map in column depth_map"):
        maps.read(row, 64, 64)


def test_folders_that_cannot_be_used_are_one_line(tmp_path):
    with pytest.raises(DistilleryError, match=r"kinds.depth: .*/none is no folder"):
        open_own({"depth": {"from": f"folder {tmp_path}/none"}})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DistilleryError, match="no images in"):
        open_own({"depth": {"from": f"folder {tmp_path}/empty"}})
    with pytest.raises(DistilleryError, match=r"a.png: a.jpg has the same name"):
        own(tmp_path, {"a.png": b"", "a.jpg": b""})


def test_a_listing_that_changed_is_read_anew(tmp_path):
    before = own(tmp_path, {"a.png": png(DEPTHS[0])}).state()
    assert own(tmp_path, {}).state() == before
    assert own(tmp_path, {"b.png": b"x"}).state() != before
    assert OwnMaps("depth", "depth_map", None, None).files == {}
    assert extract_conditions.name == "extract_conditions"
