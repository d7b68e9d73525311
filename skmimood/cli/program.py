"""The command line: ``skmimood demo | fit | score | evaluate | info``."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import os
import signal
import sys
import threading
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from skmimood.cli.arguments import build_parser
from skmimood.exceptions import SkmimoodError, SkmimoodWarning
from skmimood.jobs.files import printable, to_json

# Only what parsing needs is imported above: --help must not wait for torch.

OK, SCANS_FAILED, JOB_FAILED, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; a user's mistake never ends in a traceback."""
    with _lasting_output():
        return _run(build_parser().parse_args(argv))


def _run(arguments: Namespace) -> int:
    try:
        with _shown_warnings(), _tidy_termination():
            if getattr(arguments, "n_threads", None) is not None:
                import torch

                torch.set_num_threads(arguments.n_threads)
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
    from skmimood.pipeline import PRESETS

    n_steps = arguments.max_iter
    steps = {f"{step}__training__max_iter": n_steps for step in PRESETS[arguments.preset]} if n_steps else {}
    job = _job(FitJob, arguments, parameters=steps)
    fit_model(arguments.paths, arguments.output, job, _speaker(arguments))
    return OK


def _score(arguments: Namespace) -> int:
    from skmimood.jobs.scoring import ScoreJob, score_scans

    job = _job(ScoreJob, arguments)
    table = score_scans(arguments.paths, arguments.model, arguments.output, job, _speaker(arguments))
    return SCANS_FAILED if table.n_failed or table.refused else OK


def _evaluate(arguments: Namespace) -> int:
    from skmimood.jobs.evaluation import evaluate_results

    evaluation = evaluate_results(
        arguments.results, arguments.masks, suffix=arguments.lesion_suffix,
        unmasked_healthy=arguments.unmasked_healthy, table=arguments.output,
    )  # fmt: skip
    return SCANS_FAILED if evaluation.failed else OK


def _info(arguments: Namespace) -> int:
    from skmimood.jobs.description import describe, describe_lines
    from skmimood.persistence import read_manifest
    from skmimood.runtime.paths import expand
    from skmimood.scans import ScanDetector

    detector = ScanDetector.load(arguments.model)
    version = read_manifest(expand(arguments.model))["skmimood_version"]
    if arguments.json:
        print(to_json({"skmimood_version": version, **describe(detector)}), end="")
    else:
        print("\n".join([*describe_lines(detector), f"{'Saved by:':<17} skmimood {version}"]))
    return OK


def _demo(arguments: Namespace) -> int:
    from skmimood.jobs.demo import run_demo

    options = {name: getattr(arguments, name) for name in ("seed", "device", "overwrite", "verbose")}
    run_demo(arguments.output, **options, say=_speaker(arguments))
    return OK


_COMMANDS = {"demo": _demo, "evaluate": _evaluate, "fit": _fit, "info": _info, "score": _score}


def _job(kind: Any, arguments: Namespace, **more: Any) -> Any:
    """Return a job of the arguments that are called as its fields."""
    names = {field.name for field in dataclasses.fields(kind)} & vars(arguments).keys()
    return kind(**{name: getattr(arguments, name) for name in names}, **more)


def _speaker(arguments: Namespace) -> Callable[[str], None]:
    return (lambda line: print(line, flush=True)) if arguments.verbose else (lambda line: None)


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


class _Outliving:
    """A text stream whose reader may go, or whose disk may be full: what is written then is lost, and nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, act: Callable[..., Any], *arguments: Any) -> None:
        try:
            act(*arguments)
        except OSError:  # what is left in the buffer must not fail again when Python exits
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def _lasting_output() -> Iterator[None]:
    """Let a job outlive those who read its output; its results matter more."""
    with contextlib.ExitStack() as stack:
        for redirect, stream in (
            (contextlib.redirect_stdout, sys.stdout),
            (contextlib.redirect_stderr, sys.stderr),
        ):
            if stream is None:  # closed before the start
                stream = stack.enter_context(open(os.devnull, "w"))
            if hasattr(stream, "reconfigure"):
                # File names need not be text, and those that are keep their letters where the locale knows ASCII only.
                is_ascii = codecs.lookup(stream.encoding).name == "ascii"
                stream.reconfigure(encoding="utf-8" if is_ascii else None, errors="backslashreplace")
            outliving = _Outliving(stream)
            stack.enter_context(redirect(outliving))
            stack.callback(outliving.flush)
        yield
