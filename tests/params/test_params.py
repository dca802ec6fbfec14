"""params.yaml is complete, strict and says where it is wrong."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from distillery.core import precision
from distillery.core.errors import DistilleryError
from distillery.data.conditions import KINDS
from distillery.params import Params, load_params, select
from distillery.params.read import read_values

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "params.yaml"


def _edited(tmp_path: Path, old: str, new: str) -> tuple[Path, int]:
    """params.yaml with one text replaced, and the line number of the change."""
    text = DEFAULT.read_text()
    assert text.count(old) == 1
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(old, new))
    return path, text[: text.index(old)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("min_side_px: 48", "min_side_pixels: 48", "curate.min_side_pixels: unknown key"),
        ("min_side_px: 48", "min_side_px: wide", "curate.min_side_px: Input should be a valid int"),
        ("min_side_px: 48", "min_side_px: 0", "greater than or equal to 1 (got 0)"),
        (
            "      min_aesthetic: null",
            "      min_beauty: 5.0",
            "ingest.download.filters.min_beauty: unknown key; known here: blocklists, max_punsafe",
        ),
        (
            "      max_punsafe: null",
            "      max_punsafe: 1.5",
            "ingest.download.filters.max_punsafe: Input should be less than or equal to 1 (got",
        ),
        ("max_aspect: 2.0", "max_aspect: .nan", "curate.max_aspect: .nan is no number"),
        ("max_aspect: 2.0", "max_aspect: .inf", "curate.max_aspect: .inf is no number"),
        ("seed: 0 ", "seed: 99999999999999999999", "seed: a number of more than 63 bits"),
        ("seed: 0 ", "seed: 0o17 ", "seed: Input should be a valid integer"),
        ("seed: 0 ", "seed: 017 ", "seed: 017 can't be read; write it in quotes, or without"),
        ("revision: null", "revision: 0123456", "revision: 0123456 can't be read; write it in quo"),
        ("revision: null", "revision: 1_000", "valid string (got 1000); write it in quotes"),
        ("  path: null", "  path: no", "valid string (got False); write it in quotes"),
        (
            "max_aspect: 2.0",
            "max_aspect: 1e999999999",
            "curate.max_aspect: Input should be a valid",
        ),
        ("split: {val: 0.05, test: 0.15}", "split: 3", "deduplicate.split: expected keys with val"),
        ("device: cpu ", "device: tpu ", "device: Input should be 'cpu' or 'cuda'"),
        ("parts: [0, 1]", "parts: [0, 2]", "data: parts must be 0, 1, ... in order, got [0, 2]"),
        (
            "source: scenes        # scenes | web",
            "source: folder # web",
            "ingest: source folder needs path",
        ),
        ("  curated: data/curated", "  curated: data/./raw", "paths.raw: data/raw is the same fol"),
        (
            "  curated: data/curated",
            "  curated: data/raw/x",
            "data/raw/x is inside paths.raw",
        ),
        (
            "  curated: data/curated",
            "  curatde: data/curated",
            "; did you mean curated? ",
        ),
        ("  curated: data/curated", "  curated: my data", "letters, digits and . / _ - only"),
        ("map_columns: []", "map_columns: [a/b]", "a dot or a slash in its name, or a blank at"),
        ("map_columns: []", "map_columns: [depth.map]", "a slash in its name, or a blank at its"),
        ("{backbone: unet/planned, guid", "{backbone: planned, guid", "write unet/ and the name"),
    ],
)
def test_problem_is_one_line_with_its_place(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path, line = _edited(tmp_path, old, new)
    with pytest.raises(DistilleryError) as raised:
        load_params(path)
    problems = [p for p in str(raised.value).splitlines() if message in p]
    assert len(problems) == 1
    number = int(problems[0].removeprefix(f"{path}:").split(":")[0])
    assert line - 2 <= number <= line  # a pair of keys is reported at its section


def test_unknown_key_lists_the_known(tmp_path: Path) -> None:
    path, _ = _edited(tmp_path, "max_hamming:", "hamming:")
    with pytest.raises(DistilleryError, match=r"known here: .*max_hamming"):
        load_params(path)


def test_key_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(DEFAULT.read_text() + "\nseed: 1\n")
    with pytest.raises(DistilleryError, match="seed: given twice"):
        load_params(path)


BROKEN = {
    "seed: [0\n": r":2: not valid YAML: .* in what begins in line 1; close the bracket",
    "curate:\n\tmin_side_px: 3\n": ":2: .*indent with blanks, not tabs",
    "curate:\n  min_side_px: 3\n max_aspect: 2\n": ":3: .*indent it as the lines",
    'seed: 1\ntitle: "x\n': ":3: .*in what begins in line 2; close the quote",
    "seed: *base\n": ":1: .*undefined alias 'base'; define it",
    "seed: 1\n---\nseed: 2\n": ":2: .*another document",
    "seed: !!python/none x\n": ":1: .*delete the word with !",
    "curate: &c\n  min_side_px: *c\n": "too deeply nested",
    "": ":1: expected a mapping of sections",
    "- seed: 1\n": ":1: expected a mapping of sections",
    "a: 1\ntrue: 1\n": ":2: true is no name",
    "a: 1\n? [a]\n: 1\n": ":2: a key is no name",
    f"a: 1\nseed: {'9' * 5000}\n": r":2: seed: 9{40}\.\.\. can't be read",
    "a: 1\nseed: !!bool x\n": ":2: seed: x can't be read",
    "a: 1\nseed: !!timestamp x\n": ":2: seed: x can't be read",
    "a: 1\nseed: !!float x\n": ":2: seed: x can't be read",
    "a: 1\nseed: 010\n": ":2: seed: 010 can't be read",
    "a: 1\nseed: 1:30\n": ":2: seed: 1:30 can't be read",
    "a: 1\nseed: 1:30.5\n": ":2: seed: 1:30.5 can't be read",
    'a: 1\nseed: "C:\\data"\n': ":2: .*a backslash stands in single quotes only, or write /",
    'a: 1\nseed: "C:\\users"\n': ":2: .*a backslash stands in single quotes only, or write /",
    "a: 1\n<<: 3\n": ":2: .*expected a mapping or list of mappings for merging",
    "a: 1\n...\nb: 2\n": ":3: not valid YAML",
    "# nothing\n": ":1: expected a mapping of sections",
    "a: 1\nseed: 2024-13-45\n": ":2: seed: 2024-13-45 can't be read; write it in quotes",
    "curate:\n  a: 1\n  a: 2\n": r":3: curate\.a: given twice",
    "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else '0'] * 9)}]" for i in range(9)):
        "too much of it",
}  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_broken_yaml_is_one_line_with_what_to_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(DistilleryError, match=BROKEN[text]) as raised:
        load_params(path)
    assert len(str(raised.value).splitlines()) == 1


def test_a_merge_key_brings_values_and_their_places(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: &a {b: 1}\nc:\n  <<: *a\n  d: 2\n")
    values, places = read_values(path)
    assert values["c"] == {"b": 1, "d": 2}
    assert places[("c", "b")] == f"{path}:1"


def test_broken_yaml_and_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(DistilleryError, match="not found; `distillery use scenes` writes one"):
        load_params(path)
    path.write_text("seed: [0\n")
    with pytest.raises(DistilleryError, match=r"params.yaml:\d+: not valid YAML"):
        load_params(path)


def test_several_problems_are_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(DEFAULT.read_text().replace("seed: 0 ", "seed: -1 ", 1).replace("cpu", "x", 1))
    with pytest.raises(DistilleryError) as raised:
        load_params(path)
    assert len(str(raised.value).splitlines()) == 2


def test_contradictory_pair_names_its_key(tmp_path: Path) -> None:
    path, _ = _edited(tmp_path, "methods: [svd, planned]", "methods: [svd, planned]")
    path.write_text(path.read_text().replace("init: svd", "init: data_aware", 1))
    with pytest.raises(DistilleryError, match="data_aware needs data_aware in init_student"):
        load_params(path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("share: 0.6", "share: 1.5", "plans.latency_60.share: .* less than or equal to 1"),
        ("device: cpu-fp32-b4", "device: cpu", "plans.latency_60.device: .*such as cpu-fp32-b4"),
        (
            "{rule: ratio, value: 0.3333333333333333, file: null, device: null",
            "{rule: latency, value: 1.5, file: null, device: t.json",
            "value: a share of the dense latency is at most 1",
        ),
    ],
)
def test_a_plan_that_cannot_be_is_refused_at_once(tmp_path: Path, before, after, message) -> None:
    path, _ = _edited(tmp_path, before, after)
    with pytest.raises(DistilleryError, match=message):
        load_params(path)


def test_generated_latents_have_no_maps(tmp_path: Path) -> None:
    drawn = "generated: {num_inference_steps: 25, guidance_scale: 7.5}"
    path, _ = _edited(tmp_path, "generated: null ", f"{drawn} ")
    with pytest.raises(DistilleryError, match="maps that finetune_control trains on"):
        load_params(path)


def test_distilled_controlnets_must_be_there(tmp_path: Path) -> None:
    path, _ = _edited(tmp_path, "source: scenes        # scenes (", "source: some/where # (")
    with pytest.raises(DistilleryError, match="lambda_kd: needs a ControlNet for canny"):
        load_params(path)


def test_params_are_frozen() -> None:
    params = load_params(DEFAULT)
    with pytest.raises(ValueError, match="frozen"):
        params.curate.min_side_px = 1


def _models(annotation: Any) -> set[type[BaseModel]]:
    """Every model in a type, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.values()
        return {annotation}.union(*(_models(field.annotation) for field in fields))
    return set().union(*(_models(part) for part in get_args(annotation)))


FIELDS = [
    (f"{model.__name__}.{name}", field)
    for model in sorted(_models(Params), key=lambda model: model.__name__)
    for name, field in model.model_fields.items()
]


def test_no_defaults_in_code() -> None:
    assert [name for name, field in FIELDS if not field.is_required()] == []


def test_every_field_says_what_it_does_in_a_sentence() -> None:
    """A capital letter, a full stop and at least four words; editors and docs/params.md show it."""
    assert len(FIELDS) > 150
    sentence = re.compile(r"[A-Z]\S*( \S+){3,}\.", re.DOTALL)
    sections = json.loads((ROOT / "workflow/schemas/params.schema.json").read_text())["$defs"]
    texts = {
        f"{model}.{name}": field.get("description", "")
        for model, section in sections.items()
        for name, field in section.get("properties", {}).items()
    }
    assert texts.keys() >= {name for name, _ in FIELDS if not name.startswith("Params.")}
    assert [name for name, text in texts.items() if not sentence.fullmatch(text)] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [("no", "fp32"), ("'no'", "fp32"), ("false", "fp32"), ("float16", "fp16"), ("bf16", "bf16")],
)
def test_words_of_earlier_files_are_read_with_a_hint(
    tmp_path: Path, old: str, new: str, capsys: pytest.CaptureFixture
) -> None:
    precision.hint.cache_clear()
    path = tmp_path / "params.yaml"
    path.write_text(DEFAULT.read_text().replace("precision: fp32", f"precision: {old}"))
    assert load_params(path).distill_unet.training.precision == new
    load_params(path)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4 * (old != new)  # each place once
    place = rf"{path}:\d+: \w+.training.precision: "
    assert all(re.match(f"{place}.* is read as {new}; write that", line) for line in said)


def test_numbers_may_be_text(tmp_path: Path) -> None:
    """`2e-3` is text to YAML 1.1."""
    path, _ = _edited(tmp_path, "max_aspect: 2.0", "max_aspect: 2e0")
    text = path.read_text().replace("parts: [0, 1]", "parts: ['0', '1']")
    path.write_text(text.replace("learning_rate: 2.0e-3", "learning_rate: 2e-3"))
    params = load_params(path)
    assert params == load_params(DEFAULT)
    path.write_text(text.replace("num_scenes: 2048", "num_scenes: 2.048e3"))
    assert load_params(path) == params
    path.write_text(text.replace("num_scenes: 2048", "num_scenes: 2e-3"))
    with pytest.raises(DistilleryError, match="num_scenes: Input should be a valid integer"):
        load_params(path)


@pytest.mark.parametrize("path", [DEFAULT, *sorted((ROOT / "presets").glob("*.yaml"))])
def test_values_survive_other_yaml_tools(path: Path) -> None:
    """Rewritten by PyYAML (YAML 1.1) or ruamel (1.2), each value is still the same."""
    text = path.read_text()
    written = io.StringIO()
    YAML().dump(YAML().load(text), written)
    again = {
        "by PyYAML": yaml.safe_dump(yaml.safe_load(text)),
        "by ruamel": written.getvalue(),
    }
    for rewritten in again.values():
        assert yaml.safe_load(rewritten) == YAML(typ="safe").load(rewritten) == yaml.safe_load(text)
        assert _types(yaml.safe_load(rewritten)) == _types(yaml.safe_load(text))


def _types(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _types(item) for key, item in value.items()}
    return [_types(item) for item in value] if isinstance(value, list) else type(value)


def test_select_gives_plain_values() -> None:
    params = load_params(DEFAULT)
    chosen = select(params, ["seed", "distill_unet.variants.elr"])
    assert chosen["seed"] == 0
    assert chosen["distill_unet.variants.elr"]["architecture"] == "low_rank"
    with pytest.raises(DistilleryError, match=r"'nobody' is not among .*elr"):
        select(params, ["distill_unet.variants.nobody"])


def test_importing_is_light() -> None:
    """Every stage and both front ends import the params; registries below them may not cost it."""
    script = "import sys, distillery.params; print({'torch', 'numpy', 'cv2'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("views: [cond, uncond]", "views: [cond]", "distill_guidance needs uncond; add it"),
        ("control_kinds: [canny]", "control_kinds: []", "canny is not in cache_teacher.control_k"),
        ("kinds: [canny, sketch, seg", "kinds: [canny, seg", "sketch maps are not in extract_con"),
    ],
)
def test_what_a_family_is_trained_on_must_be_made(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(DEFAULT.read_text().replace(old, new, 1))
    with pytest.raises(DistilleryError, match=re.escape(message)):
        load_params(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            "seed: 0\n# caf\xe9\n".encode("cp1252"),
            ":2: the text is no UTF-8 (byte 0xe9); save the file as",
        ),
        ("seed: 0\n".encode("utf-16"), ":1: the text is UTF-16; save the file as UTF-8"),
        ("seed: 0\n".encode("utf-16-be"), ":1: the text is UTF-16; save the file as UTF-8"),
        ("seed: 0\n".encode("utf-16-le"), ":1: the text is UTF-16; save the file as UTF-8"),
        ("seed: 0\n".encode("utf-32"), ":1: the text is UTF-32; save the file as UTF-8"),
        ("seed: 0\n".encode("utf-32-be"), ":1: the text is UTF-32; save the file as UTF-8"),
        (b"seed: 0\n\0", ":2: not valid YAML: character 0x00 is not allowed; delete it"),
        (bytes(99), ":1: not valid YAML: character 0x00 is not allowed; delete it"),
        (b"seed: 0\n# \x8c\xa9", ":2: the text is no UTF-8 (byte 0x8c)"),
        (b"seed: 0\r# a\r\nx: \xe9", ":3: the text is no UTF-8 (byte 0xe9)"),
        (b"\x1f\x8b\x08\0", ":1: the text is no UTF-8"),
        (b"seed: 0\nx: \x07\n", ":2: not valid YAML: character 0x07 is not allowed; delete it"),
        (b"seed: " + b"[" * 5000, ": not valid YAML: too deeply nested"),
        (b"seed: " + b"9" * 5000, ":1: seed: " + "9" * 40 + "... can't be read"),
        (b"seed: 0\n\tx: 1\n", ":2: not valid YAML: found character"),
    ],
)
def test_files_of_other_editors_are_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(data)
    with pytest.raises(DistilleryError) as raised:
        load_params(path)
    assert str(raised.value).startswith(f"{path}:")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_mark_of_utf8_is_no_part_of_a_key(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (ROOT / "params.yaml").read_bytes())
    assert load_params(path) == load_params(ROOT / "params.yaml")


def test_a_name_that_yaml_reads_as_a_value_is_to_be_quoted(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    path.write_text(text.replace("path: null", "path: 2024-01-15"))
    with pytest.raises(DistilleryError, match=r'path: .*; write it in quotes: "2024-01-15"'):
        load_params(path)


@pytest.mark.parametrize(("source", "px"), [("scenes", 72), ("models/sd", 528), ("org/name", 80)])
def test_a_resolution_that_a_later_stage_refuses_is_refused_at_once(
    default_params: Params, source: str, px: int
) -> None:
    values = default_params.model_dump()
    values["data"]["resolution_px"] = px
    values["prepare_teacher"] |= {"source": source, "controlnets": dict.fromkeys(KINDS, "a/b")}
    with pytest.raises(ValidationError, match=rf"data\.resolution_px: {px} is no multiple of"):
        Params.model_validate(values)
    values["finetune_control"]["variants"] = {}
    assert Params.model_validate(values).data.resolution_px == px


KINDS_LINE = "  kinds: [canny, sketch, segmentation]"
MADE = "canny: null, sketch: null, segmentation: builtin"


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ("[]", "name at least one kind"),
        ("[canny, hue]", "hue is no kind; choose from canny, "),
        ("{depth: {from: maps/depth}}", "depth.from: 'maps/depth'; write depth: {from: column"),
        ("{depth: maps}", "depth: maps says not where its maps are; write depth: {from: column"),
        ("{depth: {from: folder a, scale: 2}}", "says not where its maps are"),
        ("{depth: {from: folder a, resize: cubic}}", "depth.resize: cubic; use nearest or area"),
        ("[canny, sketch, segmentation, pose]", "pose: nothing built in draws pose maps"),
        (f"{{{MADE}, depth: {{from: column d}}}}", "column d is not taken along; set ingest.map_"),
    ],
)
def test_bad_kinds_are_one_line_at_plan_time(tmp_path: Path, kinds: str, message: str) -> None:
    path, _ = _edited(tmp_path, KINDS_LINE, f"  kinds: {kinds}")
    with pytest.raises(DistilleryError) as error:
        load_params(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert f"{path.name}:" in str(error.value)


def test_depth_of_photos_needs_a_model_or_maps(tmp_path: Path) -> None:
    path, _ = _edited(tmp_path, KINDS_LINE, "  kinds: [canny, sketch, segmentation, depth]")
    assert "depth" in load_params(path).extract_conditions.kinds
    text = path.read_text().replace("source: scenes        #", "source: folder #", 1)
    path.write_text(text.replace("  path: null", "  path: photos", 1))
    with pytest.raises(DistilleryError, match=r"set extract_conditions.depth to a model.*folder"):
        load_params(path)
    own = f"{{{MADE}, depth: {{from: folder maps/depth, resize: area}}}}"
    path.write_text(path.read_text().replace("[canny, sketch, segmentation, depth]", own))
    kinds = load_params(path).extract_conditions.kinds
    assert list(kinds) == ["canny", "sketch", "segmentation", "depth"]
    assert kinds["depth"] == {"from": "folder maps/depth", "resize": "area"}


def test_the_scenes_teacher_has_no_controlnet_for_every_kind(tmp_path: Path) -> None:
    path, _ = _edited(tmp_path, KINDS_LINE, "  kinds: [canny, sketch, segmentation, blur]")
    old = "control_kinds: [canny]"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, "control_kinds: [canny, blur]"))
    with pytest.raises(DistilleryError, match="the scenes teacher has no ControlNet for blur"):
        load_params(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("accumulate_steps: 1", "accumulate_steps: 3", "3 equal parts .*; use one of its divisors"),
        ("weights: fp32", "weights: bf16", "bf16 can't be computed with in fp32; set precision"),
    ],
)
def test_keys_that_contradict_are_named_with_their_own_line(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "params.yaml"
    text = DEFAULT.read_text().replace(old, new, 1)
    path.write_text(text)
    line = text[: text.index(new)].count("\n") + 1
    key = rf"params.yaml:{line}: distill_unet.training.{new.split(':')[0]}: "
    with pytest.raises(DistilleryError, match=key + said):
        load_params(path)


@pytest.mark.parametrize(
    ("old", "new", "key", "meant"),
    [
        ("    planned: {arch", "    planned: {stpes: 9, arch",
         "distill_unet.variants.planned.stpes", "steps? known here: architecture, init"),
        ("{each: 0.3,", "{eahc: 0.3,", "finetune_control.drop.eahc", "each? known here: caption"),
        ("\ncurate:\n", "\ncurrate:\n", "currate", "curate? known here: cache_teacher"),
        ("latency_60: {method", "latency_60: {metod", "init_student.plans.latency_60.metod",
         "method? known here: by, device"),
        ("student: {backbone", "student: {bakbone", "generate.whole.student.bakbone", "backbone?"),
    ],
)  # fmt: skip
def test_a_typo_in_a_key_is_one_line(
    tmp_path: Path, old: str, new: str, key: str, meant: str
) -> None:
    """The key that was meant is not said to be missing as well, in entries of one's own either."""
    path, line = _edited(tmp_path, old, new)
    with pytest.raises(DistilleryError) as found:
        load_params(path)
    line += old.startswith("\n")
    said = f"{path}:{line}: {key}: unknown key; did you mean {meant}"
    assert str(found.value).startswith(said)
    assert "\n" not in str(found.value)


def test_what_is_unknown_stands_before_what_is_missing(tmp_path: Path) -> None:
    path, _ = _edited(tmp_path, "original: {student: original,", "original: {student: {zzz: 0.5},")
    with pytest.raises(DistilleryError) as found:
        load_params(path)
    first, *rest = str(found.value).splitlines()
    assert "variants.original.student.zzz: unknown key; known here: attention, channels" in first
    assert all(": missing; " in line for line in rest)


def test_a_word_that_may_be_a_section_is_judged_as_a_word(tmp_path: Path) -> None:
    path, _ = _edited(tmp_path, "original: {student: original,", "original: {student: origin,")
    with pytest.raises(DistilleryError) as found:
        load_params(path)
    assert re.fullmatch(
        r"\S+:\d+: distill_controlnet\.variants\.original\.student: Input should be 'original', .*",
        str(found.value),
    )
