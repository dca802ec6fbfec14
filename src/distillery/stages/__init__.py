"""One thin module per pipeline stage; run with `python -m distillery.stages.<verb>`."""

import gc
import sys

# What a command imports stays; looking for garbage in it takes a fifth of the time that
# importing diffusers takes. `Stage.main` switches it on again.
if sys.argv[0] == "-m":  # only while Python looks for the module to run
    gc.disable()
