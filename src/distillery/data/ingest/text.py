"""What a source gives as text, read as text or refused: nothing else may become a caption.

In: a value of any type from a table, a JSON member or a text file. Out: text, or `BadTextError`
with the reason. A text that marks its encoding is read in it, anything else is UTF-8; of a list of
captions the first one counts. Mappings, numbers of bytes, code-page letters, web pages and what a
programming language prints for a list are refused: a caption made of them teaches a model nonsense.
"""

import ast
import codecs
import html
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

# Longest mark first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_VOID = r"(?:None|null|nan|NaN|True|False|true|false|[-+]?\d[\d.e+-]*+)"  # what else lists hold
_PRINTED = re.compile(
    rf"""\s*(?:[\[(][\s\[({{]*(?:{_VOID}\s*,\s*)*[bu]?['"]|\{{\s*(?:{_VOID}\s*:\s*)?['"]|b['"]"""
    r"""|[A-Za-z_][\w.]*\((?:\w+=)?[\[{]|[A-Za-z_]\w*\(\w+=['"]|\[\w+\([\[{]"""
    r"""|<(?:class '|[\w.]+ object at 0x))"""
)
_PRINTED_END = re.compile(r"\bdtype[:=]\s*\w+\)?\s*\Z")  # of pandas and numpy
_NO_TEXTS = re.compile(rf"\s*[\[{{](?:[\[\](){{}},:\s]|{_VOID}\b)*\s*")  # [], [nan], [[1, 2], [3]]
_QUOTED = re.compile(r"""\s*u?(['"]).*\1\s*""", re.DOTALL)  # all, as JSON and csv write a text
# What programs write for no text.
_ABSENT = {"nan", "none", "null", "n/a", "#n/a", "<na>", "nat", "nil", "undefined", "(null)", "\\n"}
_ENTITIES = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]\w{1,30});")
_FILES = re.compile(
    r"\s*(?:<!doctype|<html|<\?xml|\{\\rtf|%PDF-|version https://git-lfs)", re.IGNORECASE
)
_PRINTED_ARRAY = re.compile(r"""['"]\s+['"]""")  # numpy prints no commas: ['a' 'b']
_MAX_PRINTED_CHARS = 2**16
_MAX_CONTROL_SHARE = 0.2
_TAIL_CHARS = 100
_ESCAPED = re.compile(r"(?<![\ud800-\udbff])[\udc80-\udcff]")  # bytes that were no UTF-8
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f]")
_JOINERS = "\u200c\u200d"  # parts of words in Persian and Indic scripts, and of emoji
_TAGS = range(0xE0020, 0xE0080)  # parts of emoji: flags of regions


class BadTextError(ValueError):
    """A value that is no text; the message says why, without naming the place."""


class Undecodable:
    """Stands in a row for a value that the file's reader could not decode."""


def decode_text(data: bytes) -> str:
    """Text of a file or member: by its mark, else UTF-8. Raises BadTextError."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return _require_whole(data.decode(encoding))
    except UnicodeDecodeError as error:
        what = encoding.removesuffix("-sig").upper()
        raise BadTextError(f"text is no {what} at byte {error.start}") from None


def as_text(value: Any) -> str:
    """The text that a value is, or holds first; empty for None and what is no finite number.

    Raises BadTextError.
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, str):
        return "" if value.strip().lower() in _ABSENT else _unprinted(_require_whole(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return as_text(decode_text(bytes(value)))
    if isinstance(value, list | tuple):
        return next((text for text in map(_as_item, value) if text.strip()), "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    raise BadTextError(f"text is {_kind(value)}")


def parse_mapping(text: str) -> dict[str, Any]:
    """The mapping that a JSON text is, empty for other values.

    BadTextError for one that can't be read: it may hide a caption.
    """
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise BadTextError(type(error).__name__) from None
    return value if isinstance(value, dict) else {}


def normalise_caption(text: Any) -> str:
    """`as_text` on one line with single blanks: other control characters become blanks, and what
    web pages write as `&amp;` the character that it stands for.

    Joiners stay, since words and emoji are built with them; other invisible marks go.
    """
    return on_one_line(_ENTITIES.sub(lambda entity: html.unescape(entity[0]), as_text(text)))


def on_one_line(text: str) -> str:
    """Text without control characters and invisible marks, joiners excepted, in single blanks."""
    visible = "".join(_visible(c) for c in text)
    return " ".join(visible.split()).strip(_JOINERS)


def _as_item(value: Any) -> str:
    if isinstance(value, list | tuple):
        raise BadTextError("text is a list of lists")
    if isinstance(value, int | float) and as_text(value):
        raise BadTextError("text is a list of numbers")
    return as_text(value)


def _require_whole(text: str) -> str:
    """Refuse text that was decoded by the wrong rule before it came here."""
    if "\ufffd" in text or _ESCAPED.search(text):
        raise BadTextError("text has replacement characters: its encoding was lost")
    if len(_CONTROLS.findall(text)) > _MAX_CONTROL_SHARE * len(text):
        raise BadTextError("text is UTF-16 without its mark, or no text at all")
    if "\x1b$" in text:
        raise BadTextError("text is ISO-2022, not UTF-8")
    if kind := _FILES.match(text):
        raise BadTextError(f"text is a file of another kind, {kind[0].strip()}...")
    return text


def _unprinted(text: str) -> str:
    """Read what a programming language printed for a list or bytes as what it was."""
    if len(text) <= _MAX_PRINTED_CHARS and _NO_TEXTS.fullmatch(text):
        if re.search(r"\d|[tT]rue|[fF]alse", text):
            raise BadTextError("text is a printed list of numbers")
        return ""
    is_quoted = _QUOTED.fullmatch(text)
    is_printed = _PRINTED.match(text) or _PRINTED_END.search(text[-_TAIL_CHARS:])
    if not (is_quoted or is_printed):
        return text
    try:
        if len(text) > _MAX_PRINTED_CHARS or _PRINTED_ARRAY.search(text):
            raise ValueError
        value = _parsed(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        if is_quoted or text.lstrip().startswith("("):
            return text  # a sentence that begins with a quoted word
        raise BadTextError("text is a printed list, mapping or bytes") from None
    return as_text(value)


def _parsed(text: str) -> Any:
    """The value; JSON has its own escapes for characters beyond 16 bits."""
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)


def _number(value: int | float) -> str:
    try:
        return str(value)
    except ValueError:  # more digits than Python prints
        raise BadTextError("text is a number of thousands of digits") from None


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping; name the column with one text"
    return f"of type {type(value).__name__}"


def _visible(char: str) -> str:
    if char.isprintable() or char in _JOINERS or ord(char) in _TAGS:
        return char
    is_mark = unicodedata.category(char) == "Cf" and char != "\u200b"  # which parts words
    return "" if is_mark else " "
