import cv2
import numpy as np
import pyarrow as pa
import pytest
from data_helpers import jpeg

from distillery.data.dedupe.candidates import hamming_pairs
from distillery.data.dedupe.compare import Thumbnails, same_picture
from distillery.data.dedupe.find import REASONS, find_duplicates
from distillery.data.dedupe.near import near_duplicates
from distillery.data.dedupe.phash import phash, small_luma
from distillery.data.dedupe.rows import make_rows as make_rows_of
from distillery.data.dedupe.selection import draw_split
from distillery.data.dedupe.thumbnails import thumbnail
from distillery.data.dedupe.windows import sketch
from distillery.data.images import decode_rgb
from distillery.data.ingest.readers import read_source
from distillery.data.scenes.draw import draw_scene

NUM_EDITED = 200


def confirmed(first, second):
    """Whether the deciding comparison holds two images for the same picture."""
    sides = np.array([min(image.shape[:2]) for image in (first, second)])
    thumbnails = Thumbnails(np.stack([thumbnail(first), thumbnail(second)]), sides)
    answer = same_picture(thumbnails, 0, 1, 0.9)
    assert answer == same_picture(thumbnails, 1, 0, 0.9)
    return answer


def proposed(first, second, max_hamming=10):
    return (int(phash(first), 16) ^ int(phash(second), 16)).bit_count() <= max_hamming


def resized(image, scale, interpolation=cv2.INTER_AREA):
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation)


EDITS = {
    "jpeg 30": lambda image: decode_rgb(jpeg(image, 30)),
    "jpeg 50": lambda image: decode_rgb(jpeg(image, 50)),
    "jpeg 95": lambda image: decode_rgb(jpeg(image, 95)),
    "half size": lambda image: resized(image, 0.5),
    "three quarters": lambda image: resized(image, 0.75),
    "double": lambda image: resized(image, 2.0, cv2.INTER_CUBIC),
}


@pytest.mark.parametrize("name", EDITS)
def test_resized_and_recompressed_scenes_are_found(scene_images, name):
    pairs = [(image, EDITS[name](image)) for image in scene_images[:NUM_EDITED]]
    found = sum(proposed(*pair) and confirmed(*pair) for pair in pairs)
    assert found >= 0.99 * NUM_EDITED


def shapes(kind, colour):
    image = np.full((64, 64, 3), 244, dtype=np.uint8)
    if kind == "circle":
        cv2.circle(image, (32, 32), 18, colour, -1, cv2.LINE_AA)
    else:
        cv2.rectangle(image, (16, 16), (48, 48), colour, -1)
    return image


def test_other_colour_other_shape_and_other_place_are_other_pictures():
    red, green = shapes("circle", (214, 32, 38)), shapes("circle", (36, 110, 56))
    assert not confirmed(red, green)
    assert not confirmed(red, shapes("square", (214, 32, 38)))
    assert not confirmed(red, np.roll(red, 6, axis=1))
    assert not confirmed(red, red[::-1, ::-1] * 0 + 244)


@pytest.mark.parametrize("max_distance", [0, 3, 4, 10])
def test_hamming_pairs_equal_brute_force(max_distance):
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 2**63, 60, dtype=np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, (60, 5, 6), dtype=np.uint64)
    near = centres[:, None] ^ np.bitwise_xor.reduce(flips, axis=2)
    hashes = np.concatenate([centres, near.ravel(), centres[:5]])
    distances = np.bitwise_count(hashes[:, None] ^ hashes)
    expected = set(zip(*np.nonzero(np.triu(distances <= max_distance, 1)), strict=True))
    found = [tuple(row) for block in hamming_pairs(hashes, max_distance) for row in block.tolist()]
    assert len(set(found)) == len(found)
    assert set(found) == expected
    assert len(expected) >= 5


def make_rows(images):
    """Rows of distinct files and the pixels to load for them."""
    return rows_of(columns_of(images)), ViewsOf(images)


def columns_of(images):
    """Curated columns of distinct files, a dict a row; the sha256 says which image it is."""
    return [
        {
            "key": f"{i:03d}", "part": i % 2, "shard": 0, "number": i, "url": f"http://x/{i}",
            "sha256": f"{i:064x}", "phash": phash(image), "width": image.shape[1],
            "height": image.shape[0], "num_bytes": 1000 + i,
        }
        for i, image in enumerate(images)
    ]  # fmt: skip


def rows_of(columns):
    return make_rows_of(pa.Table.from_pylist(columns))


def shuffled(rows, seed):
    """The rows in another order, ranked again."""
    return rows.take(np.random.default_rng(seed).permutation(len(rows))).ranked()


def told(found):
    """What was found, by keys, to be compared."""
    keys = np.array(found.rows.keys.to_pylist())
    reasons = [REASONS[code] for code in found.reasons]
    gone = zip(keys[found.gone].tolist(), reasons, keys[found.duplicate_of].tolist(), strict=True)
    kept = zip(keys[found.kept].tolist(), keys[found.clusters].tolist(), strict=True)
    return list(kept), list(gone), keys[found.mirrored].tolist()


class ViewsOf:
    """Sketches and thumbnails of images by the sha256 of their row."""

    def __init__(self, images):
        self._images = images

    def thumbnails(self, rows):
        return np.stack([thumbnail(image) for image in self._of(rows)])

    def _of(self, rows):
        return [self._images[int(rows.sha256(i), 16)] for i in range(len(rows))]

    def sketches(self, rows):
        images = self._of(rows)
        made = [np.frombuffer(sketch(image, small_luma(image)), np.uint8) for image in images]
        return np.stack(made)


def test_different_scenes_are_told_apart():
    """The hash proposes hundreds of chance pairs; what is confirmed has the same contents."""
    scenes = [draw_scene(3, index, 64) for index in range(600)]
    rows, load = make_rows([scene.image for scene in scenes])
    blocks = hamming_pairs(rows.phashes, 10)
    assert len({tuple(pair) for block in blocks for pair in block.tolist()}) > 200
    confirmed_pairs = near_duplicates(rows, load, 10, 0.9)
    assert len(confirmed_pairs) < 10
    for pair in confirmed_pairs:
        first, second = (
            [(o.shape, o.colour, o.size, o.texture) for o in scenes[k].objects] for k in pair
        )
        assert first == second


def test_a_connected_collection_is_compared_once_a_picture(scene_images, monkeypatch):
    """300 recompressed placeholders, beside another picture: no comparison of all pairs."""
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return same_picture(*arguments)

    monkeypatch.setattr("distillery.data.dedupe.near.same_picture", counted)
    copies = [decode_rgb(jpeg(scene_images[0], 50 + i % 45)) for i in range(300)]
    rows, load = make_rows([*copies, scene_images[1]])
    pairs = near_duplicates(rows, load, 10, 0.9)
    assert {i for pair in pairs for i in pair} == set(range(300))
    assert len(pairs) == 299
    assert len(calls) < 310


def find_all(rows, views, **changes):
    settings = {"max_hamming": 10, "min_ssim": 0.9, "drop_mirrored": False, **changes}
    return find_duplicates(rows, views, **settings)


def test_the_best_copy_stays_whatever_the_order(scene_images):
    originals = scene_images[:20]
    images = [edited for image in originals for edited in (image, EDITS["double"](image))]
    rows, load = make_rows(images)
    outcomes = set()
    for seed in range(4):
        found = find_all(shuffled(rows, seed), load)
        outcomes.add(tuple(told(found)[1]))
        assert set(found.rows.widths_px[found.kept]) == {128}
    assert len(outcomes) == 1
    assert len(outcomes.pop()) == len(originals)


def test_equal_bytes_and_equal_urls_are_duplicates(scene_images):
    images = [scene_images[0], scene_images[0], *scene_images[1:5]]
    columns = columns_of(images)
    columns[1] |= {name: columns[0][name] for name in ("sha256", "num_bytes")}
    columns[3] |= {"url": columns[2]["url"]}
    columns[4] |= {"url": ""}
    columns[5] |= {"url": ""}
    found = find_all(rows_of(columns).ranked(), ViewsOf(images), max_hamming=0)
    assert sorted(told(found)[1]) == [
        ("001", "duplicate_bytes", "000"),
        ("002", "duplicate_url", "003"),
    ]
    assert len(found.kept) == 4
    assert found.num_gone() == {"duplicate_bytes": 1, "duplicate_url": 1}


def test_split_shares_follow_the_hash():
    splits = [draw_split(f"cluster {i}", 0, 0.05, 0.15) for i in range(4000)]
    shares = {name: splits.count(name) / len(splits) for name in ("train", "val", "test")}
    assert shares["val"] == pytest.approx(0.05, abs=0.012)
    assert shares["test"] == pytest.approx(0.15, abs=0.02)
    assert splits != [draw_split(f"cluster {i}", 1, 0.05, 0.15) for i in range(4000)]


def photo_edits(images):
    """Three copies of every photo: recompressed at 30 to 95, resized, and cropped by 2% a side."""
    recompressed = [decode_rgb(jpeg(im, 30 + 13 * (i % 6))) for i, im in enumerate(images)]
    sized = [resized(im, (0.5, 0.75, 1.4)[i % 3]) for i, im in enumerate(images)]
    margins = [max(1, round(0.02 * min(im.shape[:2]))) for im in images]
    cropped = [np.ascontiguousarray(im[m:-m, m:-m]) for im, m in zip(images, margins, strict=True)]
    return {"jpeg": recompressed, "resize": sized, "crop": cropped}


def test_copies_of_photos_go_and_other_shots_of_a_subject_stay(photos, capsys):
    images = [decode_rgb(sample.image) for sample in read_source("webdataset", photos)]
    images = [resized(image, 256 / min(image.shape[:2])) for image in images]
    num_photos, recall = len(images), {}
    for name, copies in photo_edits(images).items():
        rows, load = make_rows([*images, *copies])
        found = set(near_duplicates(rows, load, 10, 0.9))
        recall[name] = len(found & {(i, i + num_photos) for i in range(num_photos)}) / num_photos
        assert sum(j == i + num_photos for i, j in found) >= 0.99 * len(found), name
    with capsys.disabled():
        print("recall on photos:", ", ".join(f"{k} {v:.3f}" for k, v in recall.items()))
    assert recall["jpeg"] >= 0.99
    assert recall["resize"] >= 0.99
