"""An interpreter that has imported torch, diffusers and the front ends before it starts.

`python -m distillery.stages.X` spends most of its time on imports when the data are tiny. The
`python` made here hands that command, those of the front ends, files and `python -c` to a server,
which forks: the child runs the command's own code, from its own folder, with its own environment
and output; nothing of this package is loaded before. What it starts itself as `sys.executable` is
handed over too. Everything else goes to the real interpreter. The main job, not the tests, starts
all from cold.

python tests/warm_python.py SOCKET PROCESS    serve, for as long as the process lives
"""

import array
import contextlib
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

MODULES = (
    "accelerate", "cv2", "diffusers.models.unets.unet_2d_condition", "dvc.cli", "dvc.repo",
    "jinja2", "matplotlib.figure", "multiprocessing.spawn", "peft", "pyarrow.parquet", "pydantic",
    "pytest", "skimage.metrics", "snakemake.cli", "torch", "torchmetrics",
    "transformers.models.clip.modeling_clip", "typer",
)  # fmt: skip
CLASSES = {
    "diffusers": ("AutoencoderKL", "ControlNetModel", "StableDiffusionControlNetPipeline"),
    "transformers": ("CLIPModel", "CLIPProcessor", "CLIPTokenizer"),
}
# Its first line is the real interpreter, without what takes long to start.
CLIENT = """#!{python} -IS
import array, json, os, socket, sys
modules = ("distillery.", "dvc", "pretend_device", "pytest", "snakemake")
option = sys.argv[1] if sys.argv[1:] else ""
is_module = option == "-m" and sys.argv[2].startswith(modules)
if not is_module and option != "-c" and not option.endswith(".py"):
    os.execv("{python}", ["{python}", *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect("{address}")
    wanted = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    files = array.array("i", [0, 1, 2])
    server.sendmsg([b"%10d" % len(wanted)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    server.sendall(wanted)
    sys.exit((server.recv(1) or b"\\1")[0])
"""


def write_client(folder: Path) -> tuple[Path, Path]:
    """A folder for PATH with a `python` in it, and the socket that it will ask."""
    address, python = folder / "socket", folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(CLIENT.format(python=sys.executable, address=address))
    python.chmod(0o755)
    return python.parent, address


def warm_python(folder: Path, process: int) -> Path:
    """A folder for PATH with a `python` in it, for as long as the process lives."""
    place, address = write_client(folder)
    # Read once, when the libraries are imported. What a child compiles is there for the next.
    settings = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules"),
                "PYTHONDONTWRITEBYTECODE": ""}  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, __file__, str(address), str(process)], env={**os.environ, **settings}
    )
    while not address.exists():
        assert server.poll() is None
        time.sleep(0.05)
    return place


def import_all() -> None:
    """What stages and front ends import of others."""
    for name in MODULES:
        __import__(name)
    for name, classes in CLASSES.items():
        for kind in classes:
            getattr(sys.modules[name], kind)
    gc.freeze()


def serve(address: str, process: int) -> None:
    """Answer what the client asks, each time in a fork, for as long as the process lives."""
    import_all()
    sys.executable = str(Path(address).with_name("bin") / "python")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        listener.settimeout(2)
        while Path(f"/proc/{process}").exists():
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    connection.setblocking(True)
                    connection.sendall(bytes([_answer(connection)]))
                    os._exit(0)
                connection.close()


def _answer(connection: socket.socket) -> int:
    """Run what the client asks for as the client; returns the exit status."""
    size, ancillary, _, _ = connection.recvmsg(10, socket.CMSG_SPACE(3 * 4))
    files = array.array("i", ancillary[0][2])
    with connection.makefile("rb") as stream:
        (option, *arguments), folder, environment = json.loads(stream.read(int(size)))
    for own, given in enumerate(files):
        os.dup2(given, own)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    path = environment.get("PYTHONPATH")
    sys.path[:0] = [os.path.abspath(p) for p in path.split(os.pathsep)] if path else []
    sys.argv = [option, *arguments[1:]]
    try:
        if option == "-m":
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        elif option == "-c":
            exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = [option, *arguments]
            sys.path.insert(0, str(Path(option).resolve().parent))
            runpy.run_path(option, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
