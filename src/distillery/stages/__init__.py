"""One thin module per pipeline stage; run with `python -m distillery.stages.<verb>`."""

import gc
import sys

from distillery.core.warm.client import hand_over as _hand_over

# They start without torch, in a second: a server is not worth its start for one of them.
LIGHT = ("curate", "deduplicate", "extract_conditions", "ingest", "prepare_teacher", "report")

_hand_over(__name__, LIGHT)

# What a command imports stays; looking for garbage in it takes a fifth of the time that
# importing diffusers takes. `Stage.main` switches it on again.
if sys.argv[0] == "-m":  # only while Python looks for the module to run
    gc.disable()
