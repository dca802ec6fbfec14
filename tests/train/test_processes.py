"""Two processes under torchrun train as one does, on the same batches."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from toy import train

SOURCE = Path(__file__).parents[2] / "src"
SCRIPT = """
import os, sys
from pathlib import Path
from safetensors.torch import save_file
from toy import ToySamples, train
samples = ToySamples()
model, _ = train(Path(sys.argv[1]), samples, steps=8, dropout=0.0)
save_file(model.state_dict(), f"{sys.argv[1]}/rank-{os.environ['RANK']}.safetensors")
Path(sys.argv[1], f"seen-{os.environ['RANK']}").write_text(" ".join(map(str, samples.seen[4:])))
"""


def test_two_processes_equal_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {
        "PYTHONPATH": f"{SOURCE}:{Path(__file__).parents[1]}",
        "OMP_NUM_THREADS": "1",
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    subprocess.run(
        [*launcher, "--nproc_per_node", "2", str(script), str(tmp_path / "two")],
        env=environment, check=True, timeout=200,
    )  # fmt: skip
    alone, _ = train(tmp_path / "one", steps=8, dropout=0.0)
    seen = [(tmp_path / f"two/seen-{rank}").read_text().split() for rank in (0, 1)]
    assert not set(seen[0][:3]) & set(seen[1][:3])
    for rank in (0, 1):
        together = load_file(tmp_path / f"two/rank-{rank}.safetensors")
        for name, tensor in alone.state_dict().items():
            torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=1e-5)
