# What the rules share: checked params, their paths, and the inputs that are code.
import atexit
import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path("src").resolve()))  # this checkout, not an installed one

from distillery.core.code.lock import lock_path, stage_inputs, stage_reads
from distillery.core.errors import DistilleryError
from distillery.core.log import errors_since
from distillery.families import OFFSET, STUDENTS, TRAINED
from distillery.families.teacher import TEACHER
from distillery.data import conditions
from distillery.params.demands import memory_mib
from distillery.params.overrides import effective_params
from distillery.params import select

# Jobs share the terminal: progress in whole lines, no redrawn bars.
os.environ.update(DISTILLERY_FRONT_END="snakemake")

try:
    PARAMS_FILE, PARAMS = effective_params(
        Path("params.yaml"),
        workflow.overwrite_configfiles,
        workflow.config_settings.config,
    )
except DistilleryError as error:
    print(error, file=sys.stderr)
    sys.exit(2)

STARTED = time.time()
PATHS = PARAMS.paths
PARTS = PARAMS.data.parts
VIEWS = PARAMS.cache_teacher.views
KINDS = PARAMS.extract_conditions.kinds
CONTROL_KINDS = PARAMS.cache_teacher.control_kinds
ON_GPU = int(PARAMS.device == "cuda")
THREADS = PARAMS.num_threads
LOGS = f"{PATHS.work}/logs"


def end_timers():
    """Let Snakemake end with its last job: the timers that ask for jobs live for 10 s more."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()


def params_file(wildcards, output):
    """The --params value; as a function of `output` it is no rerun trigger, its values are."""
    return str(PARAMS_FILE)


def values(verb, **named):
    """The params that a stage reads, so that Snakemake reruns it when one of them changes."""
    return lambda wildcards: select(
        PARAMS, [key.format(**named, **wildcards) for key in stage_reads(verb)]
    )


def code(verb):
    """The file that says what a stage's code is; `python workflow/sync.py` writes it."""
    return f"workflow/code/{lock_path(verb).name}"


def memory(verb):
    """What a job of this stage asks of a scheduler, in MiB."""
    return memory_mib(PARAMS, verb)


def files(folder):
    """The files of a folder that no rule makes; a folder's own time misses edits inside."""
    if not Path(folder).is_dir():
        return [folder]
    return sorted(str(file) for file in Path(folder).rglob("*") if file.is_file())


def either(names):
    """The wildcard constraint of these names; for any other Snakemake finds no rule."""
    return "|".join(names)


def model_folder(name):
    """Where the U-Net called `teacher` or `unet/<variant>` lies."""
    return PATHS.teacher if name == "teacher" else f"{PATHS.models}/{name}"


def decomposition(variant):
    """What a variant of the low-rank U-Nets starts from."""
    return f"{PATHS.init}/{PARAMS.distill_unet.variants[variant].init}"


def cached(view):
    """A view of the teacher cache, all parts."""
    return expand(f"{PATHS.teacher_cache}/{view}/{{part}}", part=PARTS)
