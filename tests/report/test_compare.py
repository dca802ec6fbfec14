import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fake_run import make_run

from distillery.cli import main
from distillery.commands.changes import MISSING
from distillery.commands.compare import open as compare_open
from distillery.commands.compare.html import write_html
from distillery.commands.compare.runs import compare_runs
from distillery.commands.compare.text import compare
from distillery.core.errors import DistilleryError

PARAMS = "seed: 0\npaths: {metrics: metrics}\ntraining: {steps: 200, lr: 0.002}\n"


def _run(folder: Path) -> Path:
    make_run(folder, with_committed=False, families=False)
    (folder / "params.yaml").write_text(PARAMS)
    return folder


def _change(folder: Path, name: str, by: float) -> None:
    path = folder / "metrics" / "unet" / "elr.json"
    values = json.loads(path.read_text())
    for key in ("value", "ci_low", "ci_high"):
        values["metrics"][name][key] += by
    path.write_text(json.dumps(values))


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(tmp_path_factory.mktemp("before"))


@pytest.fixture
def after(before: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(before, tmp_path / "after"))


def test_a_run_does_not_differ_from_itself(before: Path):
    found = compare_runs(str(before), str(before))
    assert found.params == {}
    assert found.moves
    assert not any(move.moved for move in found.moves)
    assert (found.only_before, found.only_after) == ([], [])


def test_only_what_leaves_its_interval_has_moved(before: Path, after: Path):
    _change(after, "reader_shape", -0.3)
    _change(after, "kid", 0.001)
    found = compare_runs(str(before), str(after))
    moved = {(move.model, move.metric): move for move in found.moves if move.moved}
    assert set(moved) == {("unet/elr", "reader_shape")}
    move = moved["unet/elr", "reader_shape"]
    assert move.difference == pytest.approx(-0.3)
    assert move.ci[0] < -0.3 < move.ci[1] < 0


def test_params_are_compared_by_their_dotted_keys(before: Path, after: Path):
    changed = PARAMS.replace("200", "400").replace("seed: 0\n", "")
    (after / "params.yaml").write_text(changed)
    found = compare_runs(str(before), str(after))
    assert found.params == {"seed": [0, MISSING], "training.steps": [200, 400]}


def test_models_of_one_run_are_named(before: Path, after: Path):
    (after / "metrics" / "unet" / "svd_only.json").unlink()
    found = compare_runs(str(before), str(after))
    assert "unet/svd_only kid" in found.only_before
    assert found.only_after == []


def test_text_and_json_say_the_same(before: Path, after: Path):
    _change(after, "kid", 2.0)
    text = compare(str(before), str(after), as_json=False)
    assert "metrics: 1 of" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["model", "metric", "first", "second", "difference", "95%", "interval"] in rows
    assert ["unet/elr", "kid", "0.0550", "2.06", "+2.00", "1.96", "to", "2.04"] in rows
    values = json.loads(compare(str(before), str(after), as_json=True))
    assert [m["metric"] for m in values["moves"] if m["moved"]] == ["kid"]


def test_nothing_moved_is_said(before: Path):
    text = compare(str(before), str(before), as_json=False)
    assert text.splitlines()[0] == "params: none changed"
    assert "nothing moved beyond its interval" in text


def test_times_stand_apart(before: Path, after: Path, tmp_path: Path):
    path = after / "metrics/profile.json"
    values = json.loads(path.read_text())
    for key in ("value", "ci_low", "ci_high"):
        values["metrics"]["unet/elr/latency_s"][key] += 1
    path.write_text(json.dumps(values))
    text = compare(str(before), str(after), as_json=False)
    metrics, times = text.split("times: ")
    assert "nothing moved" in metrics
    assert len(times.splitlines()) == 1
    assert times.startswith("1 of")
    assert re.search(r"; most unet/elr latency_s, \S+ s to \S+ s; --json or --html for all$", times)
    page = tmp_path / "compare.html"
    write_html(str(before), str(after), page)
    assert re.search(r'data-name="Difference" class="">\+1.00 s</td>', page.read_text())


def test_a_time_that_was_taken_once_has_not_moved(before: Path, after: Path):
    path = after / "metrics/profile.json"
    values = json.loads(path.read_text())
    values["metrics"]["unet/elr/latency_s"].update(dict.fromkeys(("value", "ci_low", "ci_high"), 9))
    path.write_text(json.dumps(values))
    assert "times: " not in compare(str(before), str(after), as_json=False)


def test_the_model_whose_params_changed_is_shown_though_nothing_moved(before: Path, after: Path):
    variants = "distill_unet: {variants: {elr: {learning_rate: 0.002}, mine: {steps: 1}}}\n"
    for folder, rate in ((before, "0.002"), (after, "0.001")):
        (folder / "params.yaml").write_text(PARAMS + variants.replace("0.002", rate))
    _change(after, "prediction_distance", 0.001)
    text = compare(str(before), str(after), as_json=False)
    (before / "params.yaml").write_text(PARAMS)
    assert "distill_unet.variants.elr.learning_rate: 0.002 -> 0.001" in text
    still = text.split("of the models whose params changed:")[1]
    rows = [line.split()[:4] for line in still.splitlines()]
    assert ["unet/elr", "prediction_distance", "0.110", "0.111"] in rows
    assert "svd_only" not in still


def test_the_same_images_are_compared_one_by_one(tmp_path: Path):
    """A shift of every image by less than the images' spread has moved."""
    for name, shift in (("a", 0.0), ("b", 0.01)):
        make_run(tmp_path / name, with_committed=False)
        (tmp_path / name / "params.yaml").write_text(PARAMS)
        path = tmp_path / name / "metrics/controlnet/loha.json"
        values = json.loads(path.read_text())
        for key in ("value", "ci_low", "ci_high"):
            values["metrics"]["edge_f1"][key] += shift
        kept = values["per_image"]["values"]["edge_f1"]
        kept["0"] = [value + shift for value in kept["0"]]
        path.write_text(json.dumps(values))
    (move,) = [m for m in compare_runs(str(tmp_path / "a"), str(tmp_path / "b")).moves if m.moved]
    assert (move.model, move.metric, move.difference) == ("controlnet/loha", "edge_f1", 0.01)


def test_what_is_no_run_is_refused(before: Path, tmp_path: Path):
    with pytest.raises(DistilleryError, match="neither a folder nor a revision"):
        compare_runs(str(before), "no-such-revision", tmp_path)
    with pytest.raises(DistilleryError, match=r"params\.yaml: not found"):
        compare_runs(str(before), str(tmp_path))


def _git(folder: Path, *arguments: str) -> None:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def test_metrics_in_dvcs_cache_are_read_from_it(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without a process for each: `dvc get` takes 3 s a file."""
    cache, outs = tmp_path / "cache", []
    for path in sorted((before / "metrics").rglob("*.json")):
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        kept = cache / "files/md5" / md5[:2] / md5[2:]
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept)
        outs.append({"path": path.relative_to(before).as_posix(), "md5": md5})
    here = tmp_path / "here"
    here.mkdir()
    (here / "dvc.lock").write_text(json.dumps({"stages": {"all": {"outs": outs}}}))
    shutil.copyfile(before / "params.yaml", here / "params.yaml")
    _git(here, "init", "-q")
    _git(here, "add", ".")
    _git(here, "commit", "-qm", "first")
    monkeypatch.setattr(compare_open, "_cache", lambda repository: cache)
    monkeypatch.setattr(compare_open, "_fetch", lambda *arguments: pytest.fail("asked DVC"))
    found = compare_runs("HEAD", str(before), here)
    assert len(found.moves) > 50
    assert not any(move.moved for move in found.moves)


def test_revisions_of_a_repository_are_compared(before: Path, tmp_path: Path):
    def git(*arguments: str) -> None:
        _git(tmp_path, *arguments)

    shutil.copytree(before / "metrics", tmp_path / "metrics")
    shutil.copyfile(before / "params.yaml", tmp_path / "params.yaml")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    git("tag", "first")
    _change(tmp_path, "kid", 2.0)
    git("commit", "-qam", "second")
    found = compare_runs("first", "HEAD", tmp_path)
    assert [(m.model, m.metric) for m in found.moves if m.moved] == [("unet/elr", "kid")]
    git("update-ref", "refs/exps/2a/b148/moody-ball", "HEAD")  # as DVC names an experiment
    assert compare_runs("first", "moody-ball", tmp_path) == found
    with pytest.raises(DistilleryError, match="nor an experiment of DVC"):
        compare_runs("first", "moody", tmp_path)
    git("rm", "-rq", "metrics")
    git("commit", "-qm", "no metrics")
    with pytest.raises(DistilleryError, match="no metrics in Git"):
        compare_runs("first", "HEAD", tmp_path)


def test_the_page_shows_pictures_side_by_side(before: Path, after: Path, tmp_path: Path):
    _change(after, "reader_shape", -0.3)
    out = tmp_path / "compare.html"
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(before), str(after), "--html", str(out)])
    assert not ended.value.code
    page = out.read_text()
    assert "1 metric moved: 0 to the better, 1 to the worse" in page
    first = page.split('id="pictures"')[1].split("</h3>")[1].split("<h3>")[0]
    assert "<h3>ELR Stage I</h3>" in page
    assert first.count("data:image/png") == 2 * 6
    assert page.count("<b>bold</b>") == 0
    assert not re.search(r'(href|src)="(?!data:|#)', page)


def test_a_page_or_json_and_never_in_an_artefact(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    (tmp_path / "manifest.json").touch()
    for more, reason in (
        ((), f"compare.html: lies in {tmp_path}, which its stage"),
        (("--json",), "--html is a page, --json goes to the terminal"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["compare", str(before), str(before), "--html", f"{tmp_path}/compare.html", *more])
        assert ended.value.code == 2
        assert reason in capsys.readouterr().err


def test_a_revision_has_no_pictures_and_the_page_says_so(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(before / "metrics", tmp_path / "r/metrics")
    shutil.copyfile(before / "params.yaml", tmp_path / "r/params.yaml")
    for arguments in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        _git(tmp_path / "r", *arguments)
    monkeypatch.chdir(tmp_path / "r")
    write_html("HEAD", str(before), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "nothing moved beyond its interval" in page
    assert "come without its images" in page
