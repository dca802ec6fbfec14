"""Write each DVC stage's code files and params keys into dvc.yaml from the source.

In: dvc.yaml and src/distillery/stages/*.py. Out: dvc.yaml with the import closure of every stage
under `deps` and its `reads` under `params`; nothing else is touched. Snakemake computes both
itself; DVC needs them written down, and tests/test_parity.py fails when they are out of date.

    python workflow/sync_code.py
"""

import io
import re
import sys
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from distillery.core.codeclosure import import_closure, stage_reads  # noqa: E402

_MODULE = re.compile(r"-m distillery\.stages\.(\w+)")


def synced(text: str) -> str:
    """The text of dvc.yaml with current code files and params keys."""
    yaml = YAML()
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(text)
    for stage in document["stages"].values():
        body = stage.get("do", stage)
        verb = _MODULE.search(body["cmd"]).group(1)
        data = [path for path in body["deps"] if not path.startswith("src/")]
        code = import_closure(f"distillery.stages.{verb}")
        body["deps"] = data + [f"src/{file}" for file in code]
        item = "${key}" if "foreach" in stage else "${item.variant}"
        body["params"] = [key.format(variant=item) for key in stage_reads(verb)]
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def main() -> None:
    """Rewrite dvc.yaml in place."""
    path = ROOT / "dvc.yaml"
    path.write_text(synced(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
