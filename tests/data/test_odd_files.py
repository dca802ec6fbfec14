"""Names, links and archives that users bring: every picture is read with its own caption."""

import json
import os
import tarfile
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_helpers import CAPTIONS, PICTURES, run_ingest, run_source, write_files, write_tar

from distillery.core.errors import DistilleryError
from distillery.data.ingest.readers import read_source

TEXT = CAPTIONS[0].encode()
PAIRS = list(zip(PICTURES, (text.encode() for text in CAPTIONS), strict=True))


def pairs(name):
    """{image and text members} of six samples; `name` is formatted with their numbers."""
    files = {name.format(i) + ".jpg": picture for i, (picture, _) in enumerate(PAIRS)}
    return files | {name.format(i) + ".txt": text for i, (_, text) in enumerate(PAIRS)}


def sorted_pairs(name):
    return dict(sorted(pairs(name).items()))


def test_pictures_are_known_by_their_bytes(tmp_path, capsys):
    names = ["a.jfif", "b.JPE", "c.jpg~", "d.jpg.download", "e", f"f.{'x' * 160}"]
    lines = ["file_name,text", *(f"{n},{c}" for n, c in zip(names, CAPTIONS, strict=True))]
    files = dict(zip(names, PICTURES, strict=True))
    folder = write_files(tmp_path / "in", files | {"metadata.csv": "\n".join(lines).encode()})
    assert run_source(tmp_path, capsys, "folder", folder).captions == CAPTIONS


@pytest.mark.parametrize("name", ["k.jfif", "p.php?id=7", "a.jpg?width=640", "b.jpg_l", "s", ""])
def test_a_recorded_name_is_no_reason_to_lose_a_picture(name, tmp_path, capsys):
    rows = [{"image": {"bytes": PICTURES[0], "path": name}, "text": CAPTIONS[0]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    run_ingest(tmp_path, capsys, "parquet", tmp_path / "a.parquet")
    (sample,) = read_source("webdataset", tmp_path / "raw")
    assert (sample.image, sample.suffix) == (PICTURES[0], "jpg")


def test_files_that_are_no_pictures_are_named(tmp_path, capsys):
    files = pairs("{}") | {"notes.pdf": b"%PDF", "._0.jpg": b"\0\5\x16\7", "__MACOSX/0.jpg": b"x"}
    folder = write_files(tmp_path / "in", files | {"odd.jfif_large": PICTURES[0]})
    assert len(list(read_source("folder", folder))) == 7
    printed = capsys.readouterr().err
    assert "1 files are hidden or no pictures and left out (.pdf 1), first " in printed
    assert "notes.pdf" in printed


def test_rows_that_are_unreadable_are_counted_aloud(tmp_path, capsys):
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    files = {"a.jpg": PICTURES[0], "a.txt": TEXT, "b.heic": heic, "b.txt": TEXT, "c.jpg": b""}
    curated = run_source(tmp_path, capsys, "folder", write_files(tmp_path / "in", files))
    assert curated.captions == CAPTIONS[:1]
    printed = capsys.readouterr().err
    assert (
        "2 of 3 rows are unreadable, first b: not an image of an accepted format: HEIC" in printed
    )


def test_links_are_followed(tmp_path, capsys):
    store = write_files(tmp_path / "store", {f"blob{n}": d for n, d in pairs("{}").items()})
    other = write_files(tmp_path / "other", {"z.jpg": PICTURES[0], "z.txt": b"a b c"})
    folder = tmp_path / "in"
    folder.mkdir()
    for name in pairs("{}"):
        (folder / name).symlink_to(store / f"blob{name}")
    (folder / "more").symlink_to(other)
    (folder / "loop").symlink_to(folder)
    (folder / "self").symlink_to("self")
    assert run_ingest(tmp_path, capsys, "folder", folder).captions == [*CAPTIONS, "a b c"]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_metadata_of_split_folders(kind, tmp_path, capsys):
    files = {f"{'train' if i < 4 else 'test'}/x/{i}.jpg": PICTURES[i] for i in range(6)}
    folder = write_files(tmp_path / "in", files)
    for part, numbers in (("train", range(4)), ("test", range(4, 6))):
        rows = [{"file_name": f"x\\{i}.jpg", "text": CAPTIONS[i]} for i in numbers]
        write_metadata(folder / part / f"metadata.{kind}", rows)
    assert sorted(run_ingest(tmp_path, capsys, "folder", folder).captions) == sorted(CAPTIONS)


def write_metadata(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        lines = ["file_name,text", *(f"{row['file_name']},{row['text']}" for row in rows)]
        path.write_text("\n".join(lines))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_pictures_beside_metadata_that_it_does_not_list_are_named(tmp_path, capsys):
    table = b"file_name,text\n0.jpg,a\n"
    files = {"0.jpg": PICTURES[0], "1.jpg": PICTURES[1], "metadata.csv": table}
    assert len(list(read_source("folder", write_files(tmp_path / "in", files)))) == 1
    assert "does not list 1 pictures, which are left out, first 1.jpg" in capsys.readouterr().err


@pytest.mark.parametrize(
    "members",
    [
        pairs("{}"),  # all images, then all texts
        sorted_pairs("frame.00{}"),
        sorted_pairs("img{} v1.5"),
        pairs("clip.a/{}"),
        {n.replace(".jpg", ".input.jpg").replace(".txt", ".outputs.txt"): d
         for n, d in sorted_pairs("00000{}").items()},
        {f"./{p}{n}": d for n, d in sorted_pairs("{}").items() for p in ("._", "")},
        {f"{i}.depth.png": b"\x89PNG\r\n\x1a\n" for i in range(6)} | pairs("{}"),
        sorted_pairs("caf\udce9_{}"),
        {n.replace(".jpg", ".jpg?w=640"): d for n, d in sorted_pairs("f.{}").items()},
        {n.replace(".jpg", ""): d for n, d in sorted_pairs("f.{}").items()},
        {n.replace("img.0.", "img."): d for n, d in sorted_pairs("img.{}").items()},
        {n.replace(".txt", ".caption"): d for n, d in pairs("{}").items()},
        {".DS_Store": b"x", "Thumbs.db": b"x", "PaxHeader/0.jpg": b"x", ".directory": b"x",
         "$RECYCLE.BIN/0.jpg": b"x", "ehthumbs.db": b"x"} | pairs("{}"),
    ],
    ids=["by kind", "frames", "versions", "folder with a dot", "roles", "mac", "depth", "latin-1",
         "addresses", "no suffix", "one without a number", "of trainers", "kept beside"],
)  # fmt: skip
def test_names_in_tars(members, tmp_path, capsys):
    tar = write_tar(tmp_path / "a.tar", members)
    ingested = run_ingest(tmp_path, capsys, "webdataset", tar)
    assert (ingested.captions, ingested.refused) == (CAPTIONS, ())


def test_a_text_of_several_images_is_named(tmp_path, capsys):
    members = {"0.in.jpg": PICTURES[0], "0.out.jpg": PICTURES[1], "0.words.txt": b"a b c"}
    tar = write_tar(tmp_path / "a.tar", members)
    assert "0.words.txt belongs to none" in run_ingest(tmp_path, capsys, "webdataset", tar).error


def test_names_of_a_folder_that_are_no_utf8_are_escaped(tmp_path, capsys):
    folder = write_files(tmp_path / "in", pairs("caf\udce9_{}"))
    ingested = run_ingest(tmp_path, capsys, "folder", folder)
    assert ingested.captions == CAPTIONS
    assert ingested.kept[0]["source"] == r".:caf\xe9_0.jpg"


def test_links_in_a_tar_are_what_they_point_to(tmp_path, capsys):
    write_files(tmp_path / "in", pairs("{}"))
    os.link(tmp_path / "in/0.jpg", tmp_path / "in/6.jpg")
    (tmp_path / "in/6.txt").symlink_to("0.txt")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for file in sorted((tmp_path / "in").iterdir()):
            tar.add(file, file.name)
    ingested = run_ingest(tmp_path, capsys, "webdataset", tmp_path / "a.tar")
    assert ingested.captions == [*CAPTIONS, CAPTIONS[0]]


SIDECARS = {
    "upper case": ("a.JPG", "a.TXT", TEXT),
    "of trainers": ("a.png", "a.caption", TEXT),
    "JSON": ("a.jpg", "a.json", json.dumps({"caption": CAPTIONS[0]}).encode()),
    "an address's": ("a.jpg?w=640&v=1.5", "a.txt", TEXT),
    "a saved page's": ("a.jpg.1", "a.txt", TEXT),
    "a Mac's": (unicodedata.normalize("NFD", "café.jpg"), "café.txt", TEXT),
}


@pytest.mark.parametrize(("image", "text", "data"), SIDECARS.values(), ids=SIDECARS)
def test_texts_beside_pictures(image, text, data, tmp_path, capsys):
    folder = write_files(tmp_path / "in", {image: PICTURES[0], text: data})
    (sample,) = read_source("folder", folder)
    assert (sample.caption, sample.image) == (CAPTIONS[0], PICTURES[0])
    assert capsys.readouterr().err == ""


def test_a_text_of_another_picture_is_not_taken(tmp_path, capsys):
    files = {"A.jpg": PICTURES[0], "a.jpg": PICTURES[1], "a.txt": TEXT, "img 1.5.jpg": PICTURES[2]}
    folder = write_files(tmp_path / "in", files | {"img 1.txt": TEXT})
    captions = {sample.key: sample.caption for sample in read_source("folder", folder)}
    assert captions == {"A.jpg": "", "a.jpg": CAPTIONS[0], "img 1.5.jpg": ""}
    assert "2 of 3 pictures have no caption, first .: A.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["img 1.JPG", "IMG 1.jpg", " Img 1.jpg ", "{}/Img 1.jpg"])
def test_names_in_tables_as_other_systems_write_them(name, tmp_path):
    folder = write_files(tmp_path / "in", {"Img 1.jpg": PICTURES[0]})
    table = f'file_name,text\n"{name.format(folder)}",{CAPTIONS[0]}\n'
    write_files(folder, {"metadata.csv": table.encode()})
    (sample,) = read_source("folder", folder)
    assert (sample.image, sample.key) == (PICTURES[0], "Img 1.jpg")


def test_pipes_and_hidden_folders_are_passed_over(tmp_path, capsys):
    files = {"a.jpg": PICTURES[0], "a.txt": TEXT, ".ipynb_checkpoints/a.jpg": PICTURES[1]}
    folder = write_files(tmp_path / "in", files)
    os.mkfifo(folder / "pipe")
    assert len(list(read_source("folder", folder))) == 1
    assert "2 files are hidden or no pictures and left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["captions.csv", "metadata.json", "list.txt", "metadata.xlsx", "texts/a.txt", "m.csv.gz"],
)
def test_a_table_or_text_that_is_not_read_is_named(name, tmp_path, capsys):
    folder = write_files(tmp_path / "in", {"a.jpg": PICTURES[0], name: b"a b c"})
    error = run_ingest(tmp_path, capsys, "folder", folder).error
    assert f"{name}: not read, and no picture has a text beside it; name a table metadata" in error
    if name.endswith(("txt", "json")):
        tar = write_tar(tmp_path / "a.tar", {"a.jpg": PICTURES[0], name: b"{}"})
        error = run_ingest(tmp_path, capsys, "webdataset", tar).error
        assert f"a.tar: {name} is read with no picture, and no picture has a text" in error


@pytest.mark.parametrize(
    ("source", "name"),
    [("webdataset", "a.tar"), ("parquet", "a.parquet"), ("urls", "a.csv"),
     ("folder", "metadata.csv")],
)  # fmt: skip
def test_a_pipe_is_not_waited_for(source, name, tmp_path, capsys):
    folder = write_files(tmp_path / "in", {"a.jpg": PICTURES[0]})
    os.mkfifo(folder / name)
    assert f"{name}: no file " in run_ingest(tmp_path, capsys, source, folder).error


CSV = {
    "semicolons": "file_name;text\na.jpg;red, blue\n",
    "tabs": "file_name\ttext\na.jpg\tred, blue\n",
    "blanks": 'File_Name, Text\na.jpg, "red, blue"\n',
    "quotes": '"text";"file_name"\n"red, blue";"a.jpg"\n',
}


@pytest.mark.parametrize("text", CSV.values(), ids=CSV)
def test_csv_as_spreadsheets_write_it(text, tmp_path):
    folder = write_files(tmp_path / "in", {"a.jpg": PICTURES[0], "Metadata.csv": text.encode()})
    (sample,) = read_source("folder", folder)
    assert (sample.image, sample.caption) == (PICTURES[0], "red, blue")


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("csv", 'file_name,text\na.jpg,"red\nb.jpg,blue\n', "metadata.csv: not valid"),
        ("csv", 'file_name,text\na.jpg,"red\nb.jpg,blue"\n', "csv:2: .* swallows line 3, which"),
        ("csv", 'text;file_name\n"red;a.jpg\nb;"";c";b.png\n', "csv:2: .* swallows line 3"),
        ("tsv", 'file_name\ttext\n\na.jpg\t"red\nb.jpg\tx"\n', "tsv:3: .* swallows line 4"),
        ("csv", "file_name,text,text\na.jpg,b,c\n", "csv:1: two columns text; keep one"),
        ("jsonl", '{"file_name": "a.jpg", "text": "b"},\n', "jsonl:1: .*one object a line"),
    ],
)
def test_tables_that_would_lose_rows_are_refused(name, text, error, tmp_path):
    files = {"a.jpg": PICTURES[0], f"metadata.{name}": text.encode()}
    with pytest.raises(DistilleryError, match=error):
        list(read_source("folder", write_files(tmp_path / "in", files)))


def test_half_a_character_in_a_name_costs_one_row(tmp_path):
    row = json.dumps({"file_name": "\ud83d.jpg", "text": "a b c"}).encode()
    (sample,) = read_source("folder", write_files(tmp_path / "in", {"metadata.jsonl": row}))
    assert (sample.status, sample.key) == ("file not found", "\\ud83d.jpg")


def test_a_packed_tar_among_plain_ones_is_named(tmp_path, capsys):
    tar = write_tar(tmp_path / "in/a.TAR", pairs("{}"))
    assert len(list(read_source("webdataset", tar.parent))) == 6
    write_files(tar.parent, {"b.tar.gz": b"\x1f\x8b"})
    error = run_ingest(tmp_path, capsys, "webdataset", tar.parent).error
    assert "b.tar.gz: packed; unpack it to a plain .tar" in error


def test_columns_that_nobody_reads_cost_no_row(tmp_path):
    rows = pa.table({
        "image": PICTURES[:2],
        "text": CAPTIONS[:2],
        "note": pa.array([b"\xff", b"a"]).view(pa.string()),
        "day": pa.array([2**31 - 1, 1], pa.date32()),
        "span": pa.array([2**62, 1], pa.duration("s")),
    })  # fmt: skip
    pq.write_table(rows, tmp_path / "a.parquet")
    samples = list(read_source("parquet", tmp_path / "a.parquet"))
    assert [sample.caption for sample in samples] == CAPTIONS[:2]
    folder = write_files(tmp_path / "in", {"0.jpg": PICTURES[0], "1.jpg": PICTURES[1]})
    named = rows.set_column(0, "file_name", [[b"0.jpg", b"1.jpg"]])
    pq.write_table(named, folder / "metadata.parquet")
    assert [s.caption for s in read_source("folder", folder)] == CAPTIONS[:2]


def write_images(path, *columns):
    names = ["text", *["image"] * len(columns)]
    pq.write_table(pa.Table.from_arrays([pa.array(CAPTIONS[:1]), *columns], names), path)
    return path


@pytest.mark.parametrize(
    "column",
    [pa.array(PICTURES[:1]).dictionary_encode(), pa.array(PICTURES[:1], pa.large_binary()),
     pa.array(PICTURES[:1], pa.binary(len(PICTURES[0])))],
    ids=lambda column: str(column.type).partition("[")[0],
)  # fmt: skip
def test_columns_of_bytes_of_any_kind(column, tmp_path, capsys):
    path = write_images(tmp_path / "a.parquet", column)
    run_ingest(tmp_path, capsys, "parquet", path)
    (sample,) = read_source("webdataset", tmp_path / "raw")
    assert (sample.image, sample.caption) == (PICTURES[0], CAPTIONS[0])


def test_columns_that_hold_no_picture_are_called_what_they_are(tmp_path, capsys):
    lists = pa.array([PICTURES[:1]])
    path = write_images(tmp_path / "a.parquet", lists)
    error = run_ingest(tmp_path, capsys, "parquet", path).error
    assert "a.parquet: column image holds list<element: binary>, not bytes" in error
    write_images(path, pa.array(PICTURES[:1]), pa.array(PICTURES[1:2]))
    error = run_ingest(tmp_path, capsys, "parquet", path).error
    assert "a.parquet: two columns image; keep one of them" in error


def test_a_flipped_bit_is_found_where_pages_have_checksums(tmp_path, capsys):
    rows = {"image": PICTURES[:2], "text": CAPTIONS[:2]}
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(rows), path, write_page_checksum=True, **options)
    data = bytearray(path.read_bytes())
    data[data.index(PICTURES[1]) + 300] ^= 4
    path.write_bytes(data)
    assert "a.parquet: not readable" in run_ingest(tmp_path, capsys, "parquet", path).error


def test_pictures_without_captions_are_counted_aloud(tmp_path, capsys):
    tar = write_tar(tmp_path / "a.tar", pairs("{}") | {"6.jpg": PICTURES[0], "7.jpg": PICTURES[1]})
    assert len(list(read_source("webdataset", tar))) == 8
    assert "2 of 8 pictures have no caption, first a.tar: 6" in capsys.readouterr().err
