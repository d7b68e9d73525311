"""Train with several GPUs, or several processes on a CPU: to the weights of one process, but for rounding.

Run: torchrun --nproc-per-node 2 examples/several_processes.py OUT_DIR
(some minutes on two CPU cores; needs skmimood[report] for the phantom)

On a machine with GPUs each process takes one; `torchrun --nnodes 4 --nproc-per-node 8 ...` uses four such machines. The
program does the same: torchrun --nproc-per-node 2 -m skmimood fit healthy/ -o model/
"""

import sys

import torch

from skmimood import make_mimood_pipeline, save_model
from skmimood.datasets import make_brain_phantom


def main(output) -> None:
    torch.set_num_threads(1)  # of each process
    # Every process must have the same data and parameters; fit divides each batch among them.
    healthy, _ = make_brain_phantom(64, size=64, random_state=0)
    pipe = make_mimood_pipeline(preset="tiny", random_state=0, verbose=True)
    # For the small phantom; drop these for real work.
    for step in pipe:
        step.set_params(training__max_iter=100)
    pipe.fit(healthy)
    save_model(pipe, output)  # the first process writes; the others have nothing to do here


if __name__ == "__main__":
    main(sys.argv[1])
