"""Scores that a filter names and a source lacks, by the commands a user types."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_helpers import CAPTIONS, PICTURES, run_ingest, run_source, write_files, write_tar

BEFORE = {"ingest.download.filters.min_aesthetic": 5.5}
KEY = "ingest.download.filters.min_aesthetic"
OTHERS = dict.fromkeys(("curate.max_punsafe", "curate.max_pwatermark", "curate.min_similarity"))
BY_AESTHETIC = {**OTHERS, "curate.min_aesthetic": 5.5}
NAN, INFINITE = float("nan"), float("inf")


def rows_with(**columns):
    """Six rows of captions with further columns."""
    return [
        {"text": caption, **{name: values[i] for name, values in columns.items()}}
        for i, caption in enumerate(CAPTIONS)
    ]


def write_source(kind, root, rows):
    """The rows with six pictures, as each source keeps them; returns (source, path)."""
    root.mkdir(parents=True, exist_ok=True)
    named = [{"file_name": f"{i}.jpg", **row} for i, row in enumerate(rows)]
    if kind == "webdataset":
        members = {}
        for i, row in enumerate(rows):
            members |= {f"{i}.jpg": PICTURES[i], f"{i}.json": json.dumps(row).encode()}
        return kind, write_tar(root / "0.tar", members)
    if kind in ("parquet", "datasets"):
        table = pa.Table.from_pylist(
            [{"image": {"bytes": PICTURES[i], "path": None}, **row} for i, row in enumerate(rows)]
        )
        pq.write_table(table, root / "a.parquet")
        return kind, root / "a.parquet"
    write_files(root, {f"{i}.jpg": PICTURES[i] for i in range(len(rows))})
    if kind == "csv":
        lines = [named[0], *(row.values() for row in named)]
        cells = [",".join("" if v is None else str(v) for v in line) for line in lines]
        (root / "metadata.csv").write_text("\n".join(cells))
    elif kind == "metadata.parquet":
        pq.write_table(pa.Table.from_pylist(named), root / "metadata.parquet")
    else:
        (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, named)))
    return "folder", root


TABLES = ("parquet", "webdataset", "csv", "jsonl", "metadata.parquet")


def write_list(path, rows):
    rows = [{"URL": f"https://a.example/{i}.jpg", **row} for i, row in enumerate(rows)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        lines = [rows[0], *(row.values() for row in rows)]
        path.write_text("\n".join(",".join(map(str, line)) for line in lines))
    return path


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_a_misspelt_column_is_an_error_before_a_download(suffix, tmp_path, capsys):
    path = write_list(tmp_path / f"list.{suffix}", rows_with(width=[64] * 6, aesthtic=[6.0] * 6))
    error = run_ingest(tmp_path, capsys, "urls", path, **BEFORE).error
    assert f"list.{suffix}: no column aesthetic, by which {KEY} filter; it has aesthtic, " in error
    assert error.endswith(f"or set {KEY} to null")
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@pytest.mark.parametrize(
    ("values", "shown"),
    [([None] * 6, "null"), (["good"] * 6, "'good'"), ([NAN, INFINITE] * 3, "nan")],
)
def test_a_column_without_a_number_is_an_error(suffix, values, shown, tmp_path, capsys):
    path = write_list(tmp_path / f"list.{suffix}", rows_with(AESTHETIC=values))
    error = run_ingest(tmp_path, capsys, "urls", path, **BEFORE).error
    assert f"no row has a number for aesthetic (first: aesthetic {shown})" in error
    assert f"set {KEY} to null" in error


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("scores", {"aesthetic": 6.0, "size": 1}, "it has scores.aesthetic, "),
        ("aesthetic", {"value": 6.0}, "(first: aesthetic {'value': 6.0})"),
    ],
)
def test_a_score_in_a_struct_is_shown(suffix, column, value, told, tmp_path, capsys):
    path = write_list(tmp_path / f"list.{suffix}", rows_with(**{column: [value] * 6}))
    assert told in run_ingest(tmp_path, capsys, "urls", path, **BEFORE).error


def test_the_file_of_a_folder_that_lacks_the_column_is_named(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    write_list(folder / "a.parquet", rows_with(aesthetic=[6.0] * 6))
    write_list(folder / "b.parquet", rows_with(beauty=[6.0] * 6))
    error = run_ingest(tmp_path, capsys, "urls", folder, **BEFORE).error
    assert f"{folder / 'b.parquet'}: no column aesthetic" in error


@pytest.mark.parametrize("kind", TABLES)
def test_what_curate_asks_for_is_a_line_and_no_error(kind, tmp_path, capsys):
    source, path = write_source(kind, tmp_path / "in", rows_with(aesthtic=[1.0] * 6))
    assert run_ingest(tmp_path, capsys, source, path, **BY_AESTHETIC).captions == CAPTIONS
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "no column" in text]
    assert "no column aesthetic, by which curate.min_aesthetic filter; it has aesthtic, " in line
    assert line.endswith("or set curate.min_aesthetic to null; rows without pass")


def test_pictures_without_any_table_go_as_before(tmp_path, capsys):
    files = {"0.jpg": PICTURES[0], "0.txt": CAPTIONS[0].encode()}
    folder = write_files(tmp_path / "in", files)
    assert run_source(tmp_path, capsys, "folder", folder).captions == CAPTIONS[:1]
    told = capsys.readouterr().err
    assert "curate/0: 1 of 1 rows have no aesthetic; curate.min_aesthetic judged none" in told


@pytest.mark.parametrize("kind", ["parquet", "webdataset", "csv"])
def test_text_of_numbers_in_any_case_is_judged_and_the_others_counted(kind, tmp_path, capsys):
    values = ["6.5", "5.4", "7", "", "n/a", "inf"]
    source, path = write_source(kind, tmp_path / "in", rows_with(AESTHETIC_Score=values))
    found = run_source(tmp_path, capsys, source, path, **BY_AESTHETIC)
    assert found.refused == (("aesthetic", "5.4 < 5.5"),)
    told = capsys.readouterr().err
    assert "curate/0: 3 of 5 rows have no aesthetic; curate.min_aesthetic let them pass" in told
    assert "no column" not in told
