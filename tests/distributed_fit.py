"""What each process of test_distributed does: torchrun --nproc-per-node 2 tests/distributed_fit.py FOLDER."""

import os
import sys
from pathlib import Path

import numpy as np
from conftest import build, make_slices, small_steps
from sklearn.pipeline import Pipeline

from skmimood import VQTokenizer, save_model
from skmimood.exceptions import InputError
from skmimood.training import loop


def small_heads():
    """Return healthy slices whose heads fill so little of the frame that half the tokens are left out."""
    slices = make_slices(20)
    for i, one in enumerate(slices):
        one[8 + 2 * (i % 3) :] = 0
    return slices


def pipeline(**parameters):
    """Return steps that train in a moment, with batches that two processes cannot halve, and with dead codes."""
    steps = Pipeline(
        small_steps(max_iter=6, warmup_iter=2, validation_fraction=0.3, precision="float32", **parameters)
    )
    steps.set_params(**{f"{name}__training__batch_size": 7 for name in steps.named_steps})
    return steps.set_params(
        tokenizer__codebook_decay=0.5, detector__corruption={"random": 1, "painted": 1},
        detector__skip_background=True, inpainter__skip_background=True,
    )  # fmt: skip


def learnt(steps):
    """Return weights, buffers and losses of all steps in one dict."""
    return {
        f"{group}{name}/{key}": value
        for name, step in steps.steps
        for group in ("state_", "history_")
        for key, value in getattr(step, group).items()
    }


def interrupted(fit, title, at_step):
    """Call ``fit``, which is interrupted in the training of ``title``."""
    step = loop._Trainer._step

    def interrupt(self):
        if self.runtime.title == title and self.progress.step == at_step:
            raise KeyboardInterrupt
        return step(self)

    loop._Trainer._step = interrupt
    try:
        fit()
    except KeyboardInterrupt:
        return
    finally:
        loop._Trainer._step = step
    raise AssertionError("it was not interrupted")


def cosine_tokenizer():
    """Return a tokenizer with codes of unit norm, half of which die in a moment."""
    return build(
        VQTokenizer,
        quantizer="cosine",
        n_codes=16,
        code_dim=4,
        channels=4,
        channel_multipliers=(1,),
        codebook_decay=0.5,
        max_iter=6,
        warmup_iter=2,
        batch_size=7,
        precision="float32",
        random_state=0,
    )


def refusal(healthy, **parameters):
    """Return the error of a fit that cannot be done in several processes."""
    tokenizer = build(
        VQTokenizer, n_codes=8, code_dim=4, channels=4, channel_multipliers=(1,), max_iter=1, **parameters
    )
    try:
        tokenizer.fit(healthy)
    except InputError as error:
        return str(error)
    return ""


def main(folder, rank):
    own = folder / rank  # as on a disk of its own: what the first writes, the others do not see
    steps = pipeline(memory=str(own / "cache"), checkpoint_dir=str(own / "checkpoints"), resume=True)
    healthy = small_heads()
    interrupted(lambda: steps.fit(healthy), "AnomalousTokenDetector", at_step=4)
    kinds = sorted({path.suffix for path in own.rglob("*") if path.is_file() and path.suffix})
    steps.fit(healthy)
    save_model(steps, own / "model")
    chance = build(VQTokenizer, n_codes=8, code_dim=4, channels=4, channel_multipliers=(1,), max_iter=1).fit(
        healthy
    )
    np.savez(
        folder / f"{rank}.npz",
        written_when_interrupted=kinds,
        is_saved=(own / "model").exists(),
        seed=chance.seed_,
        other_data=refusal(healthy * (1 - 0.01 * int(rank))),
        small_batch=refusal(healthy, batch_size=1),
        cosine_codes=cosine_tokenizer().fit(healthy).codes,
        **learnt(steps),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), os.environ["RANK"])
