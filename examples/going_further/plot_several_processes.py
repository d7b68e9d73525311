"""
Several GPUs, or several processes
==================================

Under ``torchrun``, ``fit`` of every estimator divides its batches among the processes, on one or several machines, and
learns the weights that one process would learn, but for rounding. On a machine with GPUs each process takes one.
"""

# %%
# Nothing of a program changes: all processes run it with the same data and parameters, and the first one writes.
# From a shell::
#
#     torchrun --nproc-per-node 2 -m skmimood fit healthy/ -o model/
#     torchrun --nnodes 4 --nproc-per-node 8 -m skmimood fit healthy/ -o model/     # four machines of eight GPUs
#
# Here the first line is run for a few steps of the smallest preset, by two processes on this CPU.

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from skmimood import ScanDetector
from skmimood.datasets import write_phantom_dataset

folder = Path(tempfile.mkdtemp())
write_phantom_dataset(folder, n_healthy=10, n_lesions=3, size=32, n_slices=8, random_state=0)
fit = ["skmimood", "fit", "healthy", "--preset", "toy", "--max-iter", "5", "--scan-fpr", "0.2", "--quiet"]
torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]

for launcher, model in [([], "one"), (torchrun, "two")]:
    command = [sys.executable, "-m", *launcher, *fit, "-o", model]
    subprocess.run(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)

# %%
# The weights agree but for rounding, which even five steps have made a little larger.

one, two = (ScanDetector.load(folder / name).pipeline_["tokenizer"].state_ for name in ("one", "two"))
largest = max(float(np.abs(one[name].astype(float) - two[name]).max()) for name in one)
print(f"largest difference of a weight: {largest:.1e}")

# %%
# In a program of your own, ``save_model`` and ``ScanDetector.save`` may be called by all processes: only the first
# one writes. Scoring needs no ``torchrun``: scans do not depend on one another, see
# :doc:`/auto_examples/going_further/plot_dask_cohort`.
