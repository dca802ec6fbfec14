"""A `python` whose commands run in forks of a process that has imported torch, diffusers and DVC.

The server is the product's own (`distillery.core.warm`), which has imported more: the front ends,
pytest. Its client takes what the product's does not: front ends, files, `python -c`. What a child
starts itself as `sys.executable` is handed over too. Everything else goes to the real interpreter.
The main job, not the tests, starts all from cold.

python tests/warm_python.py SOCKET PROCESS    serve, for as long as the process lives
"""

import contextlib
import functools
import os
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path

WARM = Path(__file__).resolve().parents[1] / "src/distillery/core/warm"
runpy.run_path(str(WARM / "__main__.py"))["load_alone"]()
from distillery_warm import libraries  # noqa: E402
from distillery_warm.child import Request, end_after  # noqa: E402
from distillery_warm.server import Server  # noqa: E402

LIBRARIES = dict.fromkeys((
    "dvc.cachemgr", "dvc.cli.parser", "dvc.compare", "dvc.data_cloud", "dvc.repo.artifacts",
    "dvc.repo.datasets", "dvc.repo.graph", "dvc.repo.metrics.show", "dvc.repo.plots",
    "dvc.repo.worktree", "dvc.rwlock", "dvc.utils.strictyaml", "dvc_data.hashfile.db.index",
    "dvc_data.index.checkout", "dvc_data.index.fetch", "dvc_data.index.push", "dvc_render.vega",
    "fsspec.implementations.memory", "jinja2", "matplotlib.backends.backend_svg",
    "matplotlib.figure", "multiprocessing.spawn", "networkx", "pygit2", "pytest", "ruamel.yaml",
    "scmrepo.git", "skimage.metrics", "smart_open", "snakemake.cli",
    "snakemake.report.html_reporter", "torchmetrics", "typer",
), ())  # fmt: skip
# Its first line is the real interpreter, without what takes long to start.
CLIENT = """#!{python} -IS
import os, sys
sys.path.insert(0, "{warm}")
import client
modules = ("distillery.", "dvc", "pretend_device", "pytest", "snakemake")
option = sys.argv[1] if sys.argv[1:] else ""
is_module = option == "-m" and sys.argv[2].startswith(modules)
if is_module or option == "-c" or option.endswith(".py"):
    client.follow(client.connect("{address}"), sys.argv[1:])
os.execv("{python}", ["{python}", *sys.argv[1:]])
"""


def write_client(folder: Path) -> tuple[Path, Path]:
    """A folder for PATH with a `python` in it, and the socket that it will ask."""
    address, python = folder / "socket", folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(CLIENT.format(python=sys.executable, warm=WARM, address=address))
    python.chmod(0o755)
    return python.parent, address


def warm_python(folder: Path, process: int) -> Path:
    """A folder for PATH with a `python` in it, for as long as the process lives."""
    place, address = write_client(folder)
    # Read once, when the libraries are imported. What a child compiles is there for the next.
    settings = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules"),
                "PYTHONDONTWRITEBYTECODE": ""}  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, __file__, str(address), str(process)], env={**os.environ, **settings}
    )
    while not address.exists():
        assert process.poll() is None
        time.sleep(0.05)
    return place


def import_all() -> None:
    """What stages and front ends import of others."""
    libraries.import_libraries(libraries.LIBRARIES | LIBRARIES)
    parse_once()


def parse_once() -> None:
    """DVC parses each `${...}` of dvc.yaml several times a command; here once, for all forks."""
    from dvc.parsing import interpolate

    interpolate.parse_expr = functools.cache(interpolate.parse_expr)  # text from text
    with contextlib.suppress(Exception):  # it is DVC's to say what is wrong
        interpolate.check_expression((WARM.parents[3] / "dvc.yaml").read_text())


def serve(address: str, process: int) -> None:
    """Fork for who asks, for as long as the process lives; a fork runs what it was asked for."""
    import_all()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{address}.new")
        listener.listen()
        os.rename(f"{address}.new", address)  # once it is there, it answers
        request = Server(listener, os.pidfd_open(process)).serve()
    if request is not None:
        request.become()
        executable = str(Path(address).with_name("bin") / "python")
        end_after(lambda: _run(request, executable))


def _run(request: Request, executable: str) -> None:
    """Do what an interpreter does with the client's arguments."""
    if not request.path:  # it is the client above
        sys.executable = executable
        path = os.environ.get("PYTHONPATH")
        sys.path[:0] = map(os.path.abspath, path.split(os.pathsep)) if path else []
    option, *arguments = request.arguments
    if option == "-m":
        request.run_module()
        return
    request.listen()
    if option == "-c":
        sys.argv = ["-c", *arguments[1:]]
        exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [option, *arguments]
        sys.path.insert(0, str(Path(option).resolve().parent))
        runpy.run_path(option, run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
