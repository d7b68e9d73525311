"""The command line: ``skmimood demo | fit | score | info``."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from skmimood import __version__
from skmimood.exceptions import SkmimoodError, SkmimoodWarning

# Only what parsing needs is imported above: --help must not wait for torch.

OK, SCANS_FAILED, JOB_FAILED, INTERRUPTED = 0, 1, 2, 130
_PRESETS = ("tiny", "small", "paper")
_PLANES = ("axial", "coronal", "sagittal")
_STEPS = ("tokenizer", "detector", "inpainter")

_DESCRIPTION = """\
Find what is abnormal in medical scans, having learnt from healthy scans only.
Research use only: not a medical device.
"""

_EXAMPLES = """\
examples:
  skmimood demo                              everything on an artificial brain, no data needed
  skmimood fit healthy/ -o model/            learn from a folder of healthy scans
  skmimood score scans/ -m model/ -o out/    map what is abnormal in others
  skmimood info model/                       what a model is made of

exit status: 0 all done, 1 some scans failed, 2 nothing could be done, 130 interrupted
"""

_FIT_EXAMPLES = """\
examples:
  skmimood fit healthy/ -o model/
  skmimood fit ixi/ -o model/ --modality T1 --mask-suffix brainmask --split train
  skmimood fit patients/ -o model/ --modality flair --lesion-suffix seg
  skmimood fit healthy/ -o model/ --resume          go on after an interruption

Scans are NIfTI files (.nii, .nii.gz). Some are held out, and the thresholds are set on those.
"""

_SCORE_EXAMPLES = """\
examples:
  skmimood score scans/ -m model/ -o out/
  skmimood score patient.nii.gz -m model/ -o out/
  skmimood score scans/ -m model/ -o out/ --resume  do what is missing or has failed

For each scan, on its own grid: <id>_anomaly.nii.gz (the map), <id>_pvalue.nii.gz (share of healthy pixels that
score as high) and <id>_mask.nii.gz (map above the pixel threshold). For all: scores.csv, status.json, report.html.
"""

_INFO_EXAMPLES = """\
examples:
  skmimood info model/
  skmimood info model/ --json
"""

_DEMO_EXAMPLES = """\
examples:
  skmimood demo
  skmimood demo -o /tmp/demo --seed 1

Makes artificial brain scans, some with lesions, fits on the healthy ones, scores the others, compares the maps with
the known lesions, and writes pictures and a report. Minutes on two CPU cores; no data and no download.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; a user's mistake never ends in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
    arguments = build_parser().parse_args(argv)
    try:
        with _shown_warnings():
            return int(arguments.run(arguments))
    except KeyboardInterrupt:
        _complain("error: interrupted. The same command with --resume goes on from here.")
        return INTERRUPTED
    except (SkmimoodError, OSError) as error:
        _complain(f"error: {error}")
        return JOB_FAILED


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser("skmimood", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("--version", action="version", version=f"skmimood {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_subparser)
    _add_demo(commands)
    _add_fit(commands)
    _add_score(commands)
    _add_info(commands)
    return parser


def _add_fit(commands: Any) -> None:
    parser = commands.add_parser("fit", help="learn from healthy scans", epilog=_FIT_EXAMPLES)
    parser.set_defaults(run=_fit)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="folders, globs or files of healthy scans")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the model")
    parser.add_argument("--preset", choices=_PRESETS, default="tiny", help="size of the networks (default: tiny)")
    group = parser.add_argument_group("which scans")
    _add_choice(group)
    group.add_argument("--mask-suffix", metavar="SUFFIX", help="ending of the brain mask beside each scan, which strips the skull")
    group.add_argument("--lesion-suffix", metavar="SUFFIX", help="ending of lesion masks beside the scans; slices with lesions are dropped")
    group = parser.add_argument_group("how they are seen")
    group.add_argument("--plane", choices=_PLANES, default="axial", help="direction of the slices (default: axial)")
    group.add_argument("--spacing", type=_positive, metavar="MM", help="pixel size (default: the smallest that crops no scan)")
    group.add_argument("--size", type=_count, metavar="N", help="pixels along each side of a slice (default: the preset's)")
    group = parser.add_argument_group("training and thresholds")
    group.add_argument("--max-iter", type=_count, metavar="N", help="training steps of each network (default: the preset's)")
    group.add_argument("--fpr", type=_rate, default=0.01, metavar="F", help="false-positive rate among healthy pixels (default: 0.01)")
    group.add_argument("--scan-fpr", type=_rate, default=0.05, metavar="F", help="false-positive rate among healthy scans (default: 0.05)")
    group.add_argument("--seed", type=_seed, default=0, metavar="N", help="seed of everything random (default: 0)")
    _add_running(parser, resumable="go on with an interrupted training")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep trained networks here for later equal fits")


def _add_score(commands: Any) -> None:
    parser = commands.add_parser("score", help="map what is abnormal in scans", epilog=_SCORE_EXAMPLES)
    parser.set_defaults(run=_score)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="folders, globs or files of scans")
    parser.add_argument("-m", "--model", type=Path, required=True, help="folder that fit has written")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    _add_choice(parser.add_argument_group("which scans"))
    group = parser.add_argument_group("thresholds")
    group.add_argument("--pixel-threshold", type=_number, metavar="X", help="for the masks (default: the model's)")
    group.add_argument("--scan-threshold", type=_number, metavar="X", help="for the verdicts (default: the model's)")
    _add_running(parser, resumable="keep finished scans and do the rest")
    parser.add_argument("--no-report", action="store_true", help="write no report.html")


def _add_info(commands: Any) -> None:
    parser = commands.add_parser("info", help="show what a model is made of", epilog=_INFO_EXAMPLES)
    parser.set_defaults(run=_info)
    parser.add_argument("model", type=Path, help="folder that fit has written")
    parser.add_argument("--json", action="store_true", help="print JSON; null stands for an infinite threshold")


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser("demo", help="see it work on an artificial brain", epilog=_DEMO_EXAMPLES)
    parser.set_defaults(run=_demo)
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder for everything (default: demo/)")
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="seed of everything random (default: 0)")
    _add_running(parser)


def _add_choice(group: Any) -> None:
    group.add_argument("--modality", metavar="SUFFIX", help="take the files of a folder whose names end in this, such as T1")
    group.add_argument("--split", metavar="NAME", help="only subjects of this split in the folder's splits.csv (columns subject, split)")


def _add_running(parser: Any, resumable: str | None = None) -> None:
    group = parser.add_argument_group("running")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: auto)")
    group.add_argument("--threads", type=_count, metavar="N", help="CPU threads (default: torch's choice)")
    existing = group.add_mutually_exclusive_group() if resumable else group
    if resumable:
        existing.add_argument("--resume", action="store_true", help=resumable)
    existing.add_argument("--overwrite", action="store_true", help="replace what is in the output folder")
    group.add_argument("--quiet", action="store_true", help="print warnings and errors only")


def _fit(arguments: argparse.Namespace) -> int:
    from skmimood.modelling import FitJob, fit_model

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


def _score(arguments: argparse.Namespace) -> int:
    from skmimood.scoring import ScoreJob, score_scans

    _use_threads(arguments.threads)
    job = ScoreJob(
        modality=arguments.modality,
        split=arguments.split,
        pixel_threshold=arguments.pixel_threshold,
        scan_threshold=arguments.scan_threshold,
        device=arguments.device,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        report=not arguments.no_report,
    )
    table = score_scans(arguments.paths, arguments.model, arguments.output, job, _speaker(arguments))
    return SCANS_FAILED if table.n_failed else OK


def _info(arguments: argparse.Namespace) -> int:
    from skmimood._outputs import to_json
    from skmimood.modelling import describe, describe_lines
    from skmimood.volumes import ScanDetector

    detector = ScanDetector.load(arguments.model)
    print(to_json(describe(detector)) if arguments.json else "\n".join(describe_lines(detector)))
    return OK


def _demo(arguments: argparse.Namespace) -> int:
    from skmimood.demo import run_demo

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


class _Parser(argparse.ArgumentParser):
    """A parser whose epilog keeps its lines."""

    def __init__(self, prog: str, description: str | None = None, epilog: str | None = None) -> None:
        super().__init__(
            prog, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
        )


def _subparser(prog: str, epilog: str) -> _Parser:
    return _Parser(prog, epilog=epilog)


def _speaker(arguments: argparse.Namespace) -> Callable[[str], None]:
    return (lambda line: None) if arguments.quiet else (lambda line: print(line, flush=True))


def _use_threads(n_threads: int | None) -> None:
    if n_threads is not None:
        import torch

        torch.set_num_threads(n_threads)


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
    from skmimood._outputs import printable

    print(f"skmimood: {printable(message)}", file=sys.stderr, flush=True)


def _number(text: str) -> float:
    value = float(text)
    if math.isnan(value):
        raise argparse.ArgumentTypeError("must be a number, inf included; got nan")
    return value


def _positive(text: str) -> float:
    return _checked(text, _number, lambda value: 0 < value < math.inf, "a positive number")


def _rate(text: str) -> float:
    return _checked(text, _number, lambda value: 0 < value < 1, "a rate between 0 and 1, both excluded")


def _count(text: str) -> int:
    return _checked(text, int, lambda value: value >= 1, "a whole number of at least 1")


def _seed(text: str) -> int:
    return _checked(text, int, lambda value: 0 <= value < 2**32, "a whole number from 0 to 4294967295")


def _checked(text: str, convert: Callable[[str], Any], is_fine: Callable[[Any], bool], wanted: str) -> Any:
    try:
        value = convert(text)
    except (ValueError, argparse.ArgumentTypeError):
        value = None
    if value is None or not is_fine(value):
        raise argparse.ArgumentTypeError(f"must be {wanted}; got {text!r}")
    return value
