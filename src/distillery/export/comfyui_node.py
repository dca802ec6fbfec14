"""One Python file with ComfyUI nodes that load low-rank U-Nets and student ControlNets.

Out: the file, for ComfyUI's `custom_nodes/`: `remote.comfyui` with the ControlNet's class put in
where it is imported, so that it needs nothing of this package. Not here: weights; model folders
are read as they are.
"""

import textwrap
from pathlib import Path

from distillery.core.errors import DistilleryError
from distillery.core.publishing import publish

_REMOTE = Path(__file__).parent / "remote"
_IMPORT = "    from distillery.export.remote.student_controlnet import StudentControlNet\n"


def node_source() -> str:
    """The text of the file."""
    glue = (_REMOTE / "comfyui.py").read_text(encoding="utf-8")
    module = (_REMOTE / "student_controlnet.py").read_text(encoding="utf-8")
    _, _, code = module.removeprefix('"""').partition('"""\n')
    before, imported, after = glue.partition(_IMPORT)
    assert imported, "remote/comfyui.py imports the class in another form"
    return before + textwrap.indent(code.strip(), "    ") + "\n" + after


def write(out: Path) -> Path:
    """Write the file `out`, whose name ends in `.py`; equal versions write equal bytes."""
    if out.suffix != ".py":
        raise DistilleryError(f"{out}: must end in .py, a file for ComfyUI's custom_nodes")
    source = node_source()
    compile(source, str(out), "exec")
    with publish(out) as partial:
        partial.write_text(source, encoding="utf-8")
    return out
