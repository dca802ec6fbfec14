"""`distillery use`: a complete, commented params.yaml for a preset, and never over one's edits."""

import shutil
from pathlib import Path

import pytest

from distillery import cli
from distillery.params import load_params
from distillery.params.presets import load_preset
from project import ROOT

PARAMS = Path("params.yaml")


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As much of the repository as `use` looks at."""
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    shutil.copytree(ROOT / "workflow/schemas", tmp_path / "workflow/schemas")
    shutil.copy(ROOT / "workflow/schemas/params.shipped.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _use(*arguments: str) -> int:
    with pytest.raises(SystemExit) as raised:
        cli.main(["use", *arguments])
    return raised.value.code


def test_a_preset_becomes_a_complete_file(capsys: pytest.CaptureFixture) -> None:
    shipped = PARAMS.read_text()
    assert _use("sd21", "ingest.path=/data/laion", "distill_unet.variants.elr.steps=10") == 0
    said = capsys.readouterr().out.splitlines()
    assert "values changed" in said[0]
    assert "  device: cpu -> cuda" in said
    assert len(said) <= 10
    params = load_params(PARAMS)
    wanted = load_preset(Path("presets/sd21.yaml"), Path("workflow/schemas/params.shipped.yaml"))
    assert (params.ingest.path, params.distill_unet.variants["elr"].steps) == ("/data/laion", 10)
    assert params.curate == wanted.curate
    assert params.distill_guidance == wanted.distill_guidance
    text = PARAMS.read_text()
    assert "# Preset: sd21." in text
    assert "Preset: scenes." not in text
    assert "device: cuda            # cpu | cuda" in text
    lost = [line for line in shipped.splitlines() if line.strip() and line not in text]
    assert len(lost) < 100  # of 290: what did not change is as it was, comments too


def test_one_value_and_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert _use("scenes", "ingest.path=~/my photos/größe") == 0  # shells keep a ~ after =
    assert load_params(PARAMS).ingest.path == "/home/me/my photos/größe"
    assert "; 1 value changed:" in capsys.readouterr().out


def test_another_preset_and_back() -> None:
    shipped = PARAMS.read_bytes()
    for name in ("photos", "scenes-full", "sd-turbo", "scenes"):
        assert _use(name) == 0
    assert PARAMS.read_bytes() == shipped


def test_edits_are_not_overwritten(capsys: pytest.CaptureFixture) -> None:
    assert _use("photos", "seed=3") == 0
    edited = PARAMS.read_text().replace("max_hamming: 10", "max_hamming: 9")
    PARAMS.write_text(edited)
    assert _use("sd15") == 2
    assert "has edits of yours" in capsys.readouterr().err
    assert PARAMS.read_text() == edited
    assert _use("sd15", "--force") == 0
    assert load_params(PARAMS).deduplicate.max_hamming == 10


def test_a_comment_is_an_edit_too() -> None:
    assert _use("photos") == 0
    PARAMS.write_text(PARAMS.read_text().replace("seed: 0 ", "seed: 0  # as agreed"))
    assert _use("photos", "seed=3") == 0  # the values are the preset's, nothing else is known
    PARAMS.write_text(PARAMS.read_text().replace("seed: 3 ", "seed: 3  # as agreed"))
    assert _use("photos") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sd3"], "sd3: no such preset; give a file, or one of laion, photos, quick, scenes, sc"),
        (["photos", "curate.min_sid=3"], "unknown key; did you mean min_side_px? known here: bl"),
        (["photos", "curate.min_side_px=0"], "should be greater than or equal to 1 (got 0)"),
        (["photos", "curate.min_side_px=wide"], "curate.min_side_px: Input should be a valid int"),
        (["photos", "min_side_px"], "min_side_px: expected key=value"),
        (["photos", "seed.deeper=1"], "seed: Input should be a valid integer"),
        (["photos", "nonsense.key=3"], "distillery: nonsense.key=3: nonsense: unknown key"),
        (["mine.yaml"], "mine.yaml:2: curate.min_sid: unknown key"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    Path("mine.yaml").write_text("curate:\n  min_sid: 3\n")
    before = PARAMS.read_bytes()
    assert _use(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert PARAMS.read_bytes() == before


def test_a_file_of_ones_own() -> None:
    Path("mine.yaml").write_text("# Mine.\nseeds: [1, 2]\ngenerate: {whole: {}}\n")
    PARAMS.unlink()
    assert _use("mine.yaml") == 0
    assert load_params(PARAMS).seeds == [1, 2]
    assert load_params(PARAMS).generate.whole == {}
    assert "# Mine." in PARAMS.read_text()


def test_outside_a_repository(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.rmtree(tmp_path / "workflow")
    assert _use("photos") == 2
    assert "run this in the repository's root" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_said_at_once(capsys: pytest.CaptureFixture) -> None:
    """Also where an earlier run's raw data is: the new folder is read all the same."""
    Path("data/raw").mkdir(parents=True)
    assert _use("photos", "ingest.path=lost") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("distillery: ingest.path=lost: ingest.path: lost is not there; name the")
    assert "path: lost" in PARAMS.read_text()
    Path("lost").mkdir()
    assert _use("photos", "ingest.path=lost") == 0
    assert _use("scenes") == 0
    assert capsys.readouterr().err == ""
