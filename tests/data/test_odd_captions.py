"""Captions in encodings, lists and scripts that users bring: kept right, or refused and counted."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_helpers import CAPTIONS, PICTURES, run_ingest, run_source, write_files, write_tar

from distillery.data.ingest.text import BadTextError, normalise_caption

TEXT = CAPTIONS[0]
# Its vowel signs are no letters to a regular expression, and must not part its words.
HINDI = "नीली नदी के किनारे एक छोटी नीली नाव में बैठी छोटी लड़की"


def write_sidecars(folder, texts):
    files = {f"{i}.jpg": PICTURES[i % len(PICTURES)] for i in range(len(texts))}
    return write_files(folder, files | {f"{i}.txt": text for i, text in enumerate(texts)})


def write_parquet(path, captions, **columns):
    images = [{"bytes": data, "path": "a.jpg"} for data in PICTURES[: len(captions)]]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": images, "caption": captions, **columns}), path)
    return path


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings_are_read(encoding, tmp_path, capsys):
    folder = write_sidecars(tmp_path / "in", [text.encode(encoding) for text in CAPTIONS])
    assert run_source(tmp_path, capsys, "folder", folder).captions == CAPTIONS
    members = {f"{i}.jpg": PICTURES[i] for i in range(6)}
    members |= {f"{i}.txt": text.encode(encoding) for i, text in enumerate(CAPTIONS)}
    tar = write_tar(tmp_path / "shard.tar", members)
    assert run_source(tmp_path / "tar", capsys, "webdataset", tar).captions == CAPTIONS


def test_an_empty_text_hides_no_other_caption(tmp_path, capsys):
    folder = write_sidecars(tmp_path / "in", [b"", b"\n", b""])
    write_files(folder, {f"{i}.caption": CAPTIONS[i].encode() for i in range(2)})
    assert run_source(tmp_path, capsys, "folder", folder).captions == CAPTIONS[:2]


UNMARKED = {
    "a child’s café by the sea".encode("cp1252"): "no UTF-8 at byte 7",
    "a red kite on a table".encode("utf-16-le"): "UTF-16 without its mark",
    "a caf\ufffd by the sea".encode(): "its encoding was lost",
    "猫が窓から外を見ている".encode("shift-jis"): "no UTF-8",
    "красный змей на столе".encode("utf-16-be"): "UTF-16 without its mark",
    "赤い凧が木の机の上に".encode("iso2022-jp"): "ISO-2022, not UTF-8",
}


@pytest.mark.parametrize("source", ["folder", "webdataset"])
def test_unmarked_bytes_cost_one_row_each(source, tmp_path, capsys):
    path = write_sidecars(tmp_path / "in", [TEXT.encode(), *UNMARKED])
    if source == "webdataset":
        names = [f"{i}.{suffix}" for i in range(7) for suffix in ("jpg", "txt")]
        path = write_tar(tmp_path / "a.tar", {name: (path / name).read_bytes() for name in names})
    curated = run_source(tmp_path, capsys, source, path)
    assert curated.captions == [TEXT]
    for (reason, detail), why in zip(curated.refused, UNMARKED.values(), strict=True):
        assert reason == "unreadable"
        assert why in detail


@pytest.mark.parametrize(
    "captions",
    [
        [[TEXT, "another"], [CAPTIONS[1]]],
        [["", TEXT], [CAPTIONS[1], ""]],
        [TEXT.encode(), CAPTIONS[1].encode()],
        [[TEXT.encode()], [CAPTIONS[1].encode(), b"\xff"]],
        [f"['{TEXT}', 'x']", f'["{CAPTIONS[1]}"]'],
        [f"b'{TEXT}'", f"b'{CAPTIONS[1]}'"],
    ],
)
def test_of_a_list_the_first_caption_counts(captions, tmp_path, capsys):
    path = write_parquet(tmp_path / "in/a.parquet", captions)
    assert run_ingest(tmp_path, capsys, "parquet", path).captions == CAPTIONS[:2]


@pytest.mark.parametrize("captions", [[{"en": TEXT}], [[{"raw": TEXT}]], [[[TEXT]]], [7], [True]])
def test_a_column_that_holds_no_text_is_refused(captions, tmp_path, capsys):
    path = write_parquet(tmp_path / "in/a.parquet", captions)
    error = run_ingest(tmp_path, capsys, "parquet", path).error
    assert "a.parquet: column caption holds" in error
    assert not (tmp_path / "raw").exists()


NO_TEXTS = [
    {"en": TEXT}, [{"raw": TEXT}], "{'en': 'a'}", "['a' 'b']", "[['a']]", True, [49406, 320],
    "[49406, 320]", "[0.1 -2e-3]", "0  a red kite\nName: text, dtype: object", "Text(raw='a kite')",
    "[array(['a kite'])]",
]  # fmt: skip


@pytest.mark.parametrize("source", ["folder", "webdataset"])
def test_a_value_that_is_no_text_costs_one_row(source, tmp_path, capsys):
    rows = [{"file_name": f"{i}.jpg", "text": t} for i, t in enumerate([*NO_TEXTS, TEXT])]
    members = {f"{i}.jpg": PICTURES[0] for i in range(len(rows))}
    if source == "folder":
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path = write_files(tmp_path / "in", members | {"metadata.jsonl": lines})
    else:
        members |= {f"{i}.json": json.dumps(row).encode() for i, row in enumerate(rows)}
        path = write_tar(tmp_path / "a.tar", members)
    ingested = run_ingest(tmp_path, capsys, source, path)
    assert (ingested.captions, ingested.num_input) == ([TEXT], len(NO_TEXTS) + 1)
    assert all(status.startswith("caption: text is ") for _, status in ingested.refused)


def test_a_row_that_is_no_utf8_costs_one_row(tmp_path, capsys):
    texts = pa.array([TEXT.encode(), b"caf\xe9", b"x"]).view(pa.string())
    path = write_parquet(tmp_path / "in/a.parquet", texts)
    curated = run_source(tmp_path, capsys, "parquet", path)
    assert (curated.captions[0], curated.num_input) == (TEXT, 3)
    assert ("unreadable", "caption: column caption is no UTF-8") in curated.refused


@pytest.mark.parametrize("column", ["caption", "url"])
def test_a_damaged_row_beside_a_tar_costs_one_row(column, tmp_path, capsys):
    members = {
        f"{i}.{s}": d for i in range(2) for s, d in (("jpg", PICTURES[i]), ("txt", b"a b c"))
    }
    tar = write_tar(tmp_path / "in/a.tar", members)
    damaged = pa.array([b"a", b"\xff"]).view(pa.string())
    rows = {"key": ["0", "1"], "status": ["success"] * 2, column: damaged}
    pq.write_table(pa.table(rows), tar.with_suffix(".parquet"))
    curated = run_source(tmp_path, capsys, "webdataset", tar)
    assert (curated.captions, curated.num_input) == (["a b c"], 2)


def test_scripts_without_blanks_are_sentences(tmp_path, capsys):
    captions = [
        "一只红色的猫坐在木桌上看窗外",
        "台所でお茶を入れる女性",
        "แมวสีแดงนั่งอยู่บนโต๊ะไม้",
        HINDI,
    ]
    folder = write_sidecars(tmp_path / "in", [text.encode() for text in [*captions, "猫"]])
    curated = run_source(tmp_path, capsys, "folder", folder)
    assert curated.captions == captions
    assert curated.refused == (("caption_short", "1 words < 3"),)


@pytest.mark.parametrize("text", ["می‌خواهم", "क्‍ष", "👩‍🚀 in space", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"])
def test_joiners_stay(text):
    assert normalise_caption(text) == text


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("\ufeffa red\u200b kite\u200e", "a red kite"),
        ("a ta\xadble", "a table"),
        ("['Tis] the season", "['Tis] the season"),
        ("('quoted') in a sentence", "('quoted') in a sentence"),
        (12, "12"),
        (float("inf"), ""),
        ("nan", ""),
        (" None", ""),
        ("[None]", ""),
        ('[null, "a red kite"]', "a red kite"),
        ("u'a red kite'", "a red kite"),
        ("Tom &amp; Jerry&#39;s &lt;house&gt; by R&D", "Tom & Jerry's <house> by R&D"),
        ("[" + "1-" * 30_000 + "x", "[" + "1-" * 30_000 + "x"),
        ('"a red kite"', "a red kite"),
        (r'["a \ud83d\ude80 flies"]', "a 🚀 flies"),
        ('"Stop!" he said, "now"', '"Stop!" he said, "now"'),
        ("'Tis the season's", "'Tis the season's"),
    ],
)
def test_captions_as_one_line(text, caption):
    if text == "['Tis] the season":
        with pytest.raises(BadTextError):
            normalise_caption(text)
    else:
        assert normalise_caption(text) == caption


def test_bytes_that_python_let_through_are_no_caption():
    with pytest.raises(BadTextError, match="its encoding was lost"):
        normalise_caption("a caf\udce9 by the sea")
    assert normalise_caption("a rocket \ud83d") == "a rocket"  # cut in the middle of an emoji


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE html><html>404 Not Found</html>",
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n",
        r"{\rtf1\ansi a red kite}",
        "OrderedDict([('en', 'a red kite')])",
    ],
)
def test_files_of_other_kinds_are_no_captions(text):
    with pytest.raises(BadTextError, match="text is a"):
        normalise_caption(text)


GARBLED = [
    "A café by the sea in summer", "the “best” view of Zürich – at dawn",
    "cold at −20 °C in the north", "маленькая девочка в лодке на реке", "日本語の赤い凧が飛ぶ",
    "một con thuyền nhỏ trên sông Hồng",
    "a smile 😀 by the sea", "a street in İstanbul by night",
]  # fmt: skip
PLAIN = [
    "CAFÉ À LA CRÈME « À TABLE »", "MAÇÃ, NÃO É PÊRA", "Âge d’or à 50 €, ±2 µm",
    "a “café…” of naïve", "маленькая девочка в лодке", "một con thuyền nhỏ trên",
    "“AMANHÃ”, NA IRMÔ", "ATÉ AMANHÃ… IRMû, 5 Å",
]  # fmt: skip


def test_captions_that_were_read_in_another_encoding_are_told_and_stay(tmp_path, capsys):
    texts = [text.encode().decode("cp1252", "ignore") for text in GARBLED]
    folder = write_sidecars(tmp_path / "in", [text.encode() for text in texts])
    kept = run_source(tmp_path / "a", capsys, "folder", folder, **{"curate.min_caption_words": 1})
    said = capsys.readouterr().err
    assert "8 of 8 captions look like UTF-8 that was read as another encoding" in said
    assert "first 000000000: A cafÃ© by the sea in summer; mend" in said
    assert kept.captions[0] == texts[0]


def test_captions_with_the_same_letters_are_not_told(tmp_path, capsys):
    folder = write_sidecars(tmp_path / "in", [text.encode() for text in PLAIN])
    kept = run_source(tmp_path / "a", capsys, "folder", folder, **{"curate.min_caption_words": 1})
    assert kept.captions == PLAIN
    assert "another encoding" not in capsys.readouterr().err
