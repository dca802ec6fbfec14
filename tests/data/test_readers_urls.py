import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distillery.core.errors import DistilleryError
from distillery.data.ingest.readers.urls import UrlRow, count_rows, list_tables, read_urls


def read(path):
    tables = list_tables(path)
    rows = list(read_urls(tables))
    assert count_rows(tables) == len(rows)
    return rows


def test_parquet_columns_in_any_spelling(tmp_path):
    table = {
        "URL": ["http://a.test/x y", None],
        "TEXT": [" two\twords", "b"],
        "NSFW": ["UNLIKELY"] * 2,
        "AESTHETIC_SCORE": [6.5, float("nan")],
        "clip_similarity_vitb32": [0.3, 0.2],
    }
    pq.write_table(pa.table(table), tmp_path / "part.parquet")
    scores = {"url": "http://a.test/x y", "similarity": 0.3, "aesthetic": 6.5}
    assert read(tmp_path) == [
        UrlRow("0", "part.parquet", "http://a.test/x y", "two words", scores),
        UrlRow("1", "part.parquet", None, "b", {"similarity": 0.2}),
    ]


TEXTS = {
    "a.csv": 'url,caption,punsafe\nhttp://a.test/1,"one, two",0.5\n\nhttp://a.test/2,three,\n',
    "a.tsv": "url\tcaption\tpunsafe\nhttp://a.test/1\tone, two\t0.5\nhttp://a.test/2\tthree\t\n",
    "a.jsonl": '{"url": "http://a.test/1", "caption": "one, two", "punsafe": 0.5}\n\n'
    '{"url": "http://a.test/2", "caption": "three"}\n',
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_tables(tmp_path, name):
    (tmp_path / name).write_text("\ufeff" * (name != "a.jsonl") + TEXTS[name], encoding="utf-8")
    first, second = read(tmp_path / name)
    assert (first.url, first.caption) == ("http://a.test/1", "one, two")
    assert first.metadata == {"url": "http://a.test/1", "punsafe": 0.5}
    assert (second.url, second.caption, second.key) == ("http://a.test/2", "three", "1")


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    (tmp_path / "sub").mkdir()
    for name, text in TEXTS.items():
        (tmp_path / "sub" / name).write_text(text)
    (tmp_path / "notes.txt").write_text("no list")
    assert [row.source for row in read(tmp_path)] == [n for n in sorted(TEXTS) for _ in range(2)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "url,text\nhttp://a.test/1,x,too many\nhttp://a.test/2,x\n"),
        ("a.csv", "url,text\nfew\nhttp://a.test/2,x\n"),
        ("a.csv", f"url,text\n{'x' * 2**21},x\nhttp://a.test/2,x\n"),
        ("a.jsonl", '{"url": "h", "text": "x"}\n{"url": \n{"url": "http://a.test/2", "text": 1}\n'),
        ("a.jsonl", '{"url": "h", "text": "x"}\n7\n{"url": "http://a.test/2", "text": 1}\n'),
    ],
)
def test_a_damaged_line_is_a_row(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    *_, damaged, good = read(tmp_path)
    assert (damaged.is_damaged, damaged.url) == (True, None)
    assert (good.is_damaged, good.url) == (False, "http://a.test/2")


def test_a_line_that_is_no_utf8_is_damaged(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"url,text\nhttp://a.test/1,caf\xe9\nhttp://a.test/2,x\n")
    assert [row.is_damaged for row in read(tmp_path)] == [True, False]


def test_a_parquet_row_that_is_no_utf8_is_damaged(tmp_path):
    urls = pa.array([b"http://a.test/1", b"\xff", b"http://a.test/2"]).view(pa.string())
    pq.write_table(pa.table({"url": urls, "text": ["x"] * 3}), tmp_path / "a.parquet")
    assert [(row.url, row.is_damaged) for row in read(tmp_path)] == [
        ("http://a.test/1", False),
        (None, True),
        ("http://a.test/2", False),
    ]


def test_hostile_values_cost_one_row(tmp_path):
    row = '{"url": ["x"], "text": {"a": "\\ud800"}, "punsafe": 1' + "0" * 400 + "}\n"
    (tmp_path / "a.jsonl").write_text(row + '{"url": "\\ud800", "text": "\\ud800 b"}\n')
    first, second = read(tmp_path)
    assert first.is_damaged
    assert (second.caption, second.metadata) == ("b", {})


@pytest.mark.parametrize(
    "rest", ["x\nhttp://a.test/3,y", "x\nhttp://a.test/3,y\n", "x\n" * 101 + '"\n', "x,y\n" * 2**19]
)
def test_a_quote_never_closed_is_an_error_that_names_its_line(tmp_path, rest):
    good = 'http://a.test/1,"two\nlines"\n'
    (tmp_path / "a.csv").write_text(f'url,text\n{good}http://a.test/2,"{rest}')
    with pytest.raises(DistilleryError, match=r"a\.csv:4: a quote that opens here"):
        count_rows(list_tables(tmp_path))
    (tmp_path / "a.csv").write_text(f"url,text\n{good}{good}")
    assert [row.caption for row in read(tmp_path)] == ["two lines"] * 2


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        ("url,text", 'http://a.test/2,"two\nhttp://a.test/3,x\nhttp://a.test/4,"y\n'),
        ("url,text", 'http://a.test/2,"two\nhttp://a.test/3,5"\n'),
        ("url,text", 'http://a.test/2,"two\nhttp://a.test/3,5", red\n'),
        ("url,text", 'http://a.test/2,"two\nno scheme,"hat"\n'),
        ("url,text", 'a.test/2,"two\na.test/3,x"\n'),
        ("text,url", '"two,http://a.test/2\n"x,http://a.test/3\n'),
        ("text,url", '"two,http://a.test/2\na,x,http://a.test/3\nsix"",http://a.test/4\nx",b\n'),
        ("id,URL,text", '2,http://a.test/2,"two\n3,http://a.test/3,x"\n'),
        ("url,text", 'HTTP://a.test/2,"two\nHTTP://a.test/3,x"\n'),
        ("url,text", 'ftp://a.test/2,"two\nftp://a.test/3,x"\n'),
    ],
)
@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_quote_that_swallows_rows_is_an_error_that_names_both(tmp_path, head, rows, separator):
    table = tmp_path / ("a.csv" if separator == "," else "a.tsv")
    text = f"{head}\n{head.replace('url', 'http://a.test/1').replace('URL', 'h')}\n{rows}"
    table.write_text(text.replace(",", separator))
    with pytest.raises(
        DistilleryError, match=r"a\.[ct]sv:3: a quote that opens here swallows line"
    ):
        count_rows(list_tables(tmp_path))


def test_a_quote_in_the_names_swallows_no_rows(tmp_path):
    (tmp_path / "a.csv").write_text('url,text,"w\nhttp://a.test/1,x,1\nhttp://a.test/2,y,"2"\n')
    with pytest.raises(DistilleryError, match=r"a\.csv:1: a quote that opens here swallows line 2"):
        count_rows(list_tables(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "two\nlines, of which\none, has commas",
        "see\nhttp://a.test/9\nfor more",
        'by ""x"",\n\n""quoted"", and so on',
        "a list:\r\n1, 2, 3\r\nwww.a.test, x",
    ],
)
def test_texts_of_several_lines_are_texts(tmp_path, text):
    rows = f'http://a.test/1,"{text}",0.5\n\nhttp://a.test/2,"Hello" he said,0.5\n'
    (tmp_path / "a.csv").write_text(f"url,caption,punsafe\n{rows}")
    first, second = read(tmp_path)
    assert first.caption == " ".join(text.replace('""', '"').split())
    assert (second.caption, second.url) == ("Hello he said", "http://a.test/2")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "link,text\nx,y\n", r"a\.csv: needs a column url and one of caption, .*has link"),
        ("a.csv", "", r"a\.csv: needs a column url .*has none"),
        ("a.jsonl", "", r"a\.jsonl: needs a column url .*has none"),
        ("a.tsv", "url\tlabel\n", r"has url, label"),
        ("a.parquet", "text", r"a\.parquet: not readable"),
        ("a.txt", "http://a.test/1", r"no \.csv, \.jsonl, \.parquet, \.tsv file here or below"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DistilleryError, match=message):
        list_tables(tmp_path)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(DistilleryError, match=r"absent: not found; set ingest\.path"):
        list_tables(tmp_path / "absent")
