"""The text of dvc.yaml with each stage's lock of its code and the params keys that it reads.

In: dvc.yaml and src/distillery/stages/*.py. Out: its text, in which nothing else is touched.
Snakemake asks for both itself; DVC needs them written down.
"""

import io
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from distillery.core.code.lock import lock_path, stage_reads

_MODULE = re.compile(r"-m distillery\.stages\.(\w+)")
_LOCKS = "workflow/code/"


def synced(text: str) -> str:
    """The text of dvc.yaml with current locks and params keys."""
    yaml = YAML()
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(text)
    for stage in document["stages"].values():
        body = stage.get("do", stage)
        verb = _MODULE.search(body["cmd"]).group(1)
        data = [path for path in body["deps"] or [] if not path.startswith(_LOCKS)]
        body["deps"] = [*data, f"{_LOCKS}{lock_path(verb).name}"]
        body["params"] = _one_line(_keys(verb, "foreach" in stage))
    out = io.StringIO()
    yaml.dump(document, out)
    return re.sub(r" +$", "", out.getvalue(), flags=re.MULTILINE)


def _keys(verb: str, is_foreach: bool) -> list[str]:
    """Dotted keys, with DVC's name for what a stage repeats over; `?` marks those of entries."""
    item = "${key}" if is_foreach else "${item.variant}"
    keys = [key for key in stage_reads(verb) if is_foreach or not key.endswith("?")]
    return [key.rstrip("?").format(variant=item, method=item) for key in keys]


def _one_line(keys: list[str]) -> Any:
    """A YAML list in brackets, which takes a line or two and not one a key."""
    sequence = CommentedSeq(keys)
    sequence.fa.set_flow_style()
    return sequence
