"""What `--configfile` and `--config` change, as one params file."""

from pathlib import Path

import pytest

from distillery.core.errors import DistilleryError
from distillery.params import load_params
from distillery.params.overrides import WRITTEN_BY, effective_params

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "params.yaml"


def test_no_override_uses_the_file_itself() -> None:
    assert effective_params(DEFAULT, [], {})[0] == DEFAULT
    assert effective_params(DEFAULT, [DEFAULT], {"seed": 0})[0] == DEFAULT


def test_overrides_reach_a_merged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = {"seed": 3, "curate": {"min_side_px": "64", "min_aesthetic": "null"}}
    path, params = effective_params(DEFAULT, [], values)
    assert path == effective_params(DEFAULT, [], values)[0]
    assert path.parent == Path("work")
    assert params == load_params(path)
    assert (params.seed, params.curate.min_side_px) == (3, 64)
    assert params.curate.min_aesthetic is None
    assert params.curate.max_aspect == load_params(DEFAULT).curate.max_aspect


def test_problems_are_named_where_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the file that was given, or on the command line, and no merged file is written."""
    monkeypatch.chdir(tmp_path)
    given = {"curate": {"min_side_px": "large"}}
    with pytest.raises(DistilleryError, match=r"^--config: curate\.min_side_px: Input should be a"):
        effective_params(DEFAULT, [], given)
    Path("mine.yaml").write_bytes(b"\xef\xbb\xbfseed: 1\r\ndata:\r\n  resolution: 64\r\n")
    with pytest.raises(DistilleryError, match=r"^mine\.yaml:3: data\.resolution: unknown key"):
        effective_params(DEFAULT, [Path("mine.yaml")], {})
    given = {"ingest": {"source": "folder", "path": "lost"}}
    with pytest.raises(DistilleryError, match=r"^--config: ingest\.path: lost is not there"):
        effective_params(DEFAULT, [], given)
    assert not Path("work").exists()


def test_files_are_laid_over_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ROOT / "presets/quick.yaml"
    part = tmp_path / "part.yaml"
    part.write_text("generate: {guidance_scale: 1.5}\n")
    _, params = effective_params(DEFAULT, [quick, part], {})
    assert list(params.distill_unet.variants) == ["elr"]
    assert (params.generate.guidance_scale, params.generate.num_samples) == (1.5, 8)


def test_a_preset_over_another_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their mixture, photos on the GPU of sd21 say, is nobody's wish."""
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets/photos.yaml").write_text("seed: 1\n")
    monkeypatch.chdir(tmp_path)
    for used, refused in (("sd21", True), ("photos", False), ("scenes", False)):
        text = DEFAULT.read_text().replace("\n\nseed", f"\n{WRITTEN_BY}{used} a=b`; 0\n\nseed")
        Path("params.yaml").write_text(text)
        if refused:
            with pytest.raises(DistilleryError, match="holds the preset sd21; run `distillery use"):
                effective_params(Path("params.yaml"), [Path("presets/photos.yaml")], {})
        else:
            effective_params(Path("params.yaml"), [Path("presets/photos.yaml")], {})


@pytest.mark.parametrize("name", ["2024-01-15", "2024", "1_000", "null2", "no", "0x1f", "1e3"])
def test_names_that_look_like_values_arrive_as_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    given = {"ingest": {"source": "folder", "path": name}, "prepare_teacher": {"revision": name}}
    _, params = effective_params(DEFAULT, [], given)
    assert (params.ingest.path, params.prepare_teacher.revision) == (name, name)
