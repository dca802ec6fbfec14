"""An `ingest.path` that is not there is said before anything runs."""

from pathlib import Path

import pytest

from distillery.core.errors import DistilleryError
from distillery.params import load_params
from distillery.params.read import read_values
from distillery.params.sources import require_source
from project import ROOT


@pytest.fixture
def params_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of a user with photos."""
    text = (ROOT / "params.yaml").read_text()
    file = tmp_path / "params.yaml"
    text = text.replace("source: scenes ", "source: folder ", 1).replace(
        "path: null", "path: my/pics", 1
    )
    file.write_text(text)
    monkeypatch.chdir(tmp_path)
    return file


def test_a_missing_source_is_named_with_its_line(params_file: Path) -> None:
    params = load_params(params_file)
    with pytest.raises(
        DistilleryError, match=r"params.yaml:\d+: ingest.path: my/pics is not there"
    ):
        require_source(params, read_values(params_file)[1])
    Path("my/pics").mkdir(parents=True)
    require_source(params, read_values(params_file)[1])


def test_where_raw_shards_are_no_source_is_needed(params_file: Path) -> None:
    Path("data/raw").mkdir(parents=True)
    require_source(load_params(params_file), {})


def test_scenes_and_hub_ids_need_no_folder(params_file: Path) -> None:
    text = params_file.read_text()
    for source in ("scenes", "datasets"):
        params_file.write_text(text.replace("source: folder", f"source: {source}"))
        require_source(load_params(params_file), {})
