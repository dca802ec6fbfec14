"""What is kept of earlier searches spares comparisons and never changes what is found."""

import cv2
import numpy as np
import pytest
from data_helpers import change, make_params, run_to_selection
from test_dedupe import EDITS, find_all, make_rows, told

from distillery.core import artifacts
from distillery.data.dedupe import near
from distillery.data.dedupe.candidates import new_pairs
from distillery.data.dedupe.known import Known
from distillery.data.dedupe.windows import best_windows
from distillery.data.scenes.draw import draw_scene
from distillery.stages.deduplicate import deduplicate


def edited_scenes():
    """Of six scenes a copy, a crop, a brighter and a mirrored one; then the six, and six others."""
    scenes = [draw_scene(5, index, 64).image for index in range(12)]
    images = []
    for image in scenes[:6]:
        images += [
            EDITS["jpeg 50"](image),
            np.ascontiguousarray(image[3:-3, 2:-4]),
            cv2.convertScaleAbs(image, alpha=1.15),
            np.ascontiguousarray(image[:, ::-1]),
        ]
    return [*images, *reversed(scenes)]


def grown(rows, views, file, key="key"):
    known = Known(file, key)
    found = find_all(rows.ranked(), views, known=known)
    known.write()
    return found


@pytest.mark.parametrize("seed", range(2))
def test_rows_that_come_and_go_leave_what_a_search_from_nothing_finds(tmp_path, seed):
    rows, views = make_rows(edited_scenes())
    order = np.random.default_rng(seed).permutation(len(rows))
    for chosen in (order[:15], order[:26], order[6:], order):
        found = grown(rows.take(chosen), views, tmp_path / "known.npz")
        assert told(found) == told(find_all(rows.take(chosen).ranked(), views))
    assert len(found.gone) >= 17
    assert len(found.mirrored) >= 5


def test_two_old_pictures_are_not_compared_again(tmp_path, monkeypatch):
    rows, views = make_rows(edited_scenes())
    grown(rows.take(np.arange(len(rows) - 2)), views, tmp_path / "known.npz")
    compared = []
    for name in ("same_picture", "same_window", "mirrored_picture"):
        original = getattr(near, name)
        monkeypatch.setattr(
            near, name, lambda *given, call=original: compared.append(given[1:3]) or call(*given)
        )
    grown(rows, views, tmp_path / "known.npz")
    num_grown = len(compared)
    grown(rows, views, tmp_path / "known.npz")
    assert len(compared) == num_grown
    find_all(rows.ranked(), views)
    assert num_grown < 0.3 * (len(compared) - num_grown)


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "foreign", "other key", "pairs"])
def test_what_cannot_be_used_is_named_and_made_again(tmp_path, capsys, harm):
    rows, views = make_rows(edited_scenes()[:24])
    file = tmp_path / "known.npz"
    whole = told(grown(rows, views, file))
    data = file.read_bytes()
    middle = len(data) // 2
    harmed = {
        "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "cut": data[:middle],
        "empty": b"",
        "foreign": b"not ours",
    }
    file.write_bytes(harmed.get(harm, data))
    if harm == "pairs":
        with np.load(file) as held:
            values = dict(held)
        values["frames pairs"] = np.array([[0, 10**6]], np.int32)
        np.savez(file, **values)
    capsys.readouterr()
    again = grown(rows, views, file, "other" if harm == "other key" else "key")
    assert told(again) == whole
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"deduplicate: {file}: ")
    assert line.endswith("; everything is compared")
    grown(rows, views, file, "other" if harm == "other key" else "key")
    assert capsys.readouterr().err == ""


def test_proposals_of_a_pair_do_not_depend_on_the_others():
    rows, views = make_rows(edited_scenes())
    sketches = views.sketches(rows)
    alone = best_windows(sketches)
    is_new = np.arange(len(rows)) % 3 == 0
    wanted = alone[is_new[alone[:, 0]] | is_new[alone[:, 1]]]
    assert best_windows(sketches, is_new).tolist() == wanted.tolist()
    assert len(wanted) > 20


def test_the_stage_with_a_part_more_gives_the_bytes_of_a_run_from_nothing(tmp_path, monkeypatch):
    """The command compares what is new; after a change of a threshold it compares everything."""
    scenes = {"ingest.scenes.num_scenes": 120, "ingest.shard_size_samples": 30}
    params = make_params(tmp_path / "work", {**scenes, "data.parts": [0, 1, 2, 3]})
    run_to_selection(change(params, "paths.work", str(tmp_path / "fresh")), tmp_path)
    num_new = []

    def counted(hashes, max_hamming, is_new, *more):
        num_new.append(int(is_new.sum()))
        return new_pairs(hashes, max_hamming, is_new, *more)

    monkeypatch.setattr(near, "new_pairs", counted)
    fewer = change(params, "data.parts", [0, 1, 2])
    deduplicate(fewer, curated=tmp_path / "curated", selection=tmp_path / "fewer")
    deduplicate(params, curated=tmp_path / "curated", selection=tmp_path / "grown")
    assert num_new[0] > 70
    assert 20 < num_new[3] < 30
    ours, theirs = (artifacts.hash_files(tmp_path / name) for name in ("grown", "selection"))
    assert ours == theirs
    stricter = change(params, "deduplicate.min_ssim", 0.95)
    num_new.clear()
    deduplicate(stricter, curated=tmp_path / "curated", selection=tmp_path / "stricter")
    assert num_new[0] > 95
