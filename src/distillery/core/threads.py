"""How many CPU threads the numeric libraries use.

In: a number from the params, never derived from the machine: sums depend on it in their last bits.
"""

import os
import sys


def set_threads(num_threads: int) -> None:
    """Limit the libraries that are already loaded, and those that processes to come load."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(num_threads)
    if cv2 := sys.modules.get("cv2"):
        cv2.setNumThreads(num_threads)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(num_threads)
