"""The command line: ``skmimood demo | fit | score | info``."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from skmimood.cli.arguments import build_parser
from skmimood.cli.streams import lasting_output
from skmimood.exceptions import SkmimoodError, SkmimoodWarning
from skmimood.jobs.outputs import printable, to_json

# Only what parsing needs is imported above: --help must not wait for torch.

OK, SCANS_FAILED, JOB_FAILED, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
_STEPS = ("tokenizer", "detector", "inpainter")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; a user's mistake never ends in a traceback."""
    with lasting_output():
        return _run(build_parser().parse_args(argv))


def _run(arguments: Namespace) -> int:
    try:
        with _shown_warnings(), _tidy_termination():
            return _COMMANDS[arguments.command](arguments)
    except KeyboardInterrupt as interrupt:
        _complain(f"error: interrupted.{_advice(arguments)}")
        return TERMINATED if isinstance(interrupt, _Terminated) else INTERRUPTED
    except MemoryError:
        _complain("error: not enough memory. Close other programs, or lower --size or --preset of fit.")
        return JOB_FAILED
    except (SkmimoodError, OSError) as error:
        _complain(f"error: {error}")
        return JOB_FAILED


def _fit(arguments: Namespace) -> int:
    from skmimood.jobs.fitting import FitJob, fit_model

    _use_threads(arguments.threads)
    steps = {} if arguments.max_iter is None else {f"{step}__max_iter": arguments.max_iter for step in _STEPS}
    job = FitJob(
        preset=arguments.preset,
        parameters=steps,
        plane=arguments.plane,
        spacing=arguments.spacing,
        size=arguments.size,
        mask=arguments.mask_suffix or "auto",
        modality=arguments.modality,
        lesions=arguments.lesion_suffix,
        split=arguments.split,
        groups=arguments.groups,
        volume=arguments.volume,
        max_bytes=arguments.max_bytes,
        max_invalid=arguments.max_invalid,
        fpr=arguments.fpr,
        scan_fpr=arguments.scan_fpr,
        seed=arguments.seed,
        device=arguments.device,
        cache=arguments.cache,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        verbose=not arguments.quiet,
    )
    fit_model(arguments.paths, arguments.output, job, _speaker(arguments))
    return OK


def _score(arguments: Namespace) -> int:
    from skmimood.jobs.scoring import ScoreJob, score_scans

    _use_threads(arguments.threads)
    job = ScoreJob(
        modality=arguments.modality,
        split=arguments.split,
        mask=arguments.mask_suffix,
        pixel_threshold=arguments.pixel_threshold,
        scan_threshold=arguments.scan_threshold,
        volume=arguments.volume,
        max_bytes=arguments.max_bytes,
        max_invalid=arguments.max_invalid,
        device=arguments.device,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        healed=arguments.healed,
        report=not arguments.no_report,
        n_jobs=arguments.jobs,
        n_threads=arguments.threads,
    )
    table = score_scans(arguments.paths, arguments.model, arguments.output, job, _speaker(arguments))
    return SCANS_FAILED if table.n_failed or table.refused else OK


def _info(arguments: Namespace) -> int:
    from skmimood.jobs.description import describe, describe_lines
    from skmimood.jobs.fitting import saved_by
    from skmimood.scans import ScanDetector

    detector = ScanDetector.load(arguments.model)
    version = saved_by(arguments.model)
    if arguments.json:
        print(to_json({"skmimood_version": version, **describe(detector)}))
    else:
        print("\n".join([*describe_lines(detector), f"{'Saved by:':<17} skmimood {version}"]))
    return OK


def _demo(arguments: Namespace) -> int:
    from skmimood.jobs.demo import run_demo

    _use_threads(arguments.threads)
    run_demo(
        arguments.output,
        seed=arguments.seed,
        device=arguments.device,
        overwrite=arguments.overwrite,
        verbose=not arguments.quiet,
        say=_speaker(arguments),
    )
    return OK


_COMMANDS = {"demo": _demo, "fit": _fit, "info": _info, "score": _score}


def _speaker(arguments: Namespace) -> Callable[[str], None]:
    return (lambda line: None) if arguments.quiet else (lambda line: print(line, flush=True))


def _use_threads(n_threads: int | None) -> None:
    if n_threads is not None:
        import torch

        torch.set_num_threads(n_threads)


def _advice(arguments: Namespace) -> str:
    """Say how an interrupted command is resumed."""
    if not hasattr(arguments, "resume"):
        return ""
    if arguments.resume:
        return " The same command goes on from here."
    is_replaced = arguments.command == "score" and arguments.overwrite
    how = "with --resume in place of --overwrite" if is_replaced else "with --resume"
    return f" The same command {how} goes on from here."


class _Terminated(KeyboardInterrupt):
    """The process was asked to end: it tidies up as after Ctrl-C."""


@contextlib.contextmanager
def _tidy_termination() -> Iterator[None]:
    def terminate(number: int, frame: Any) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextlib.contextmanager
def _shown_warnings() -> Iterator[None]:
    """Print skmimood's warnings as lines for users, without the place in the code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", SkmimoodWarning)
        show = warnings.showwarning

        def show_plainly(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, SkmimoodWarning):
                _complain(f"warning: {message}")
            else:
                show(message, category, *place, **more)

        warnings.showwarning = show_plainly
        yield


def _complain(message: str) -> None:
    from tqdm import tqdm

    tqdm.write(f"skmimood: {printable(message)}", file=sys.stderr)  # above the bar, if one is shown
