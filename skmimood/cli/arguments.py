"""What the command line understands."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skmimood import __version__

# Nothing heavy is imported here: --help must not wait for torch.

_PRESETS = ("tiny", "small", "paper")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_PLANES = ("axial", "coronal", "sagittal")

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

exit status: 0 all done, 1 some scans failed, 2 nothing could be done, 130 interrupted,
143 ended from outside
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
  skmimood score scans/ -m model/ -o out/ --jobs 4  four scans at a time
  skmimood score scans/ -m model/ -o out/ --healed  the healed scans too
  skmimood score brains/ -m model/ -o out/ --mask-suffix auto
                                                    brains without skull, which need no masks

For each scan, on its own grid: <id>_anomaly.nii.gz (the map), <id>_pvalue.nii.gz (share of healthy pixels
that score as high) and <id>_mask.nii.gz (map above the pixel threshold); with --healed, <id>_healed.nii.gz too.
For all: scores.csv, status.json and report.html.
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

Makes artificial brain scans, some with lesions, fits on the healthy ones, scores the others, compares their
maps with the known lesions, and writes pictures and a report. Minutes on two CPU cores; no data, no download.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser("skmimood", description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument("--version", action="version", version=f"skmimood {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    _add_demo(commands)
    _add_fit(commands)
    _add_score(commands)
    _add_info(commands)
    return parser


def _add_fit(commands: Any) -> None:
    parser = commands.add_parser("fit", help="learn from healthy scans", epilog=_FIT_EXAMPLES)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="folders, globs or files of healthy scans")
    parser.add_argument("-o", "--output", type=_path, required=True, help="folder for the model")
    parser.add_argument(
        "--preset", choices=_PRESETS, default="tiny", help="size of the networks (default: tiny)"
    )
    group = parser.add_argument_group("which scans")
    _add_choice(group)
    _add_masks(group, "default: auto")
    group.add_argument(
        "--lesion-suffix",
        type=_ending,
        metavar="SUFFIX",
        help="ending of lesion masks beside the scans; slices with lesions are dropped",
    )
    group.add_argument(
        "--groups",
        type=Path,
        metavar="TABLE",
        help="table (columns subject, group) of scans that belong together: those of one group are never divided "
        "between training and calibration (default: by subject, sub-XX in BIDS names)",
    )
    group = parser.add_argument_group("how they are seen")
    group.add_argument(
        "--plane", choices=_PLANES, default="axial", help="direction of the slices (default: axial)"
    )
    group.add_argument(
        "--spacing",
        type=_positive,
        metavar="MM",
        help="pixel size (default: the smallest that crops no scan)",
    )
    group.add_argument(
        "--size", type=_count, metavar="N", help="pixels along each side of a slice (default: the preset's)"
    )
    _add_training(parser)
    group = _add_running(parser)
    _add_overwrite(group)
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on with an interrupted training; with --overwrite if it is to replace a model",
    )
    parser.add_argument(
        "--cache", type=_path, metavar="DIR", help="keep trained networks here for later equal fits"
    )


def _add_training(parser: Any) -> None:
    group = parser.add_argument_group("training and thresholds")
    group.add_argument(
        "--max-iter", type=_count, metavar="N", help="training steps of each network (default: the preset's)"
    )
    group.add_argument(
        "--fpr",
        type=_rate,
        metavar="F",
        help="false-positive rate among healthy pixels (default: 0.01)",
    )
    group.add_argument(
        "--scan-fpr",
        type=_rate,
        metavar="F",
        help="false-positive rate among healthy scans (default: 0.1)",
    )
    group.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="seed of everything random (default: 0)"
    )


def _add_score(commands: Any) -> None:
    parser = commands.add_parser("score", help="map what is abnormal in scans", epilog=_SCORE_EXAMPLES)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="folders, globs or files of scans")
    parser.add_argument("-m", "--model", type=_path, required=True, help="folder that fit has written")
    parser.add_argument("-o", "--output", type=_path, required=True, help="folder for the results")
    group = parser.add_argument_group("which scans")
    _add_choice(group)
    _add_masks(group, "default: the model's")
    group = parser.add_argument_group("thresholds")
    group.add_argument(
        "--pixel-threshold", type=_number, metavar="X", help="for the masks (default: the model's)"
    )
    group.add_argument(
        "--scan-threshold", type=_number, metavar="X", help="for the verdicts (default: the model's)"
    )
    group = _add_running(parser)
    group.add_argument(
        "--jobs",
        type=_count,
        metavar="N",
        help="scans to score at the same time, each in a process of its own with its share of the CPU threads, or "
        "with --threads of them (default: 1)",
    )
    existing = group.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume",
        action="store_true",
        help="keep the results of the same files and do the rest; such jobs may share a folder",
    )
    _add_overwrite(existing)
    parser.add_argument(
        "--healed",
        action="store_true",
        help="write <id>_healed.nii.gz too, the scan without what is abnormal",
    )
    parser.add_argument("--no-report", action="store_true", help="write no report.html")


def _add_info(commands: Any) -> None:
    parser = commands.add_parser("info", help="show what a model is made of", epilog=_INFO_EXAMPLES)
    parser.add_argument("model", type=_path, help="folder that fit has written")
    parser.add_argument(
        "--json", action="store_true", help="print JSON; null stands for an infinite threshold"
    )


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser("demo", help="see it work on an artificial brain", epilog=_DEMO_EXAMPLES)
    parser.add_argument(
        "-o", "--output", type=_path, default=Path("demo"), help="folder for everything (default: demo/)"
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="seed of everything random (default: 0)"
    )
    _add_overwrite(_add_running(parser))


def _add_choice(group: Any) -> None:
    group.add_argument(
        "--modality", metavar="SUFFIX", help="take the files of a folder whose names end in this, such as T1"
    )
    group.add_argument(
        "--split",
        metavar="NAME",
        help="only subjects of this split in the folder's splits.csv (columns subject, split)",
    )
    group.add_argument("--volume", type=_index, metavar="N", help="volume of 4-D scans to take, from 0")
    group.add_argument(
        "--max-bytes",
        type=_n_bytes,
        metavar="N",
        help="refuse scans of more bytes, such as 4G (fit: 2G by default; score: the model's)",
    )
    group.add_argument(
        "--max-invalid",
        type=_share,
        metavar="F",
        help="refuse scans with NaN in a larger share of the head (fit: 0.01 by default; score: the model's)",
    )


def _add_masks(group: Any, default: str) -> None:
    group.add_argument(
        "--mask-suffix",
        type=_ending,
        metavar="SUFFIX",
        help="ending of the brain mask beside each scan, which strips the skull; auto finds head or bare brain from "
        f"the intensities, none takes every voxel ({default})",
    )


def _add_running(parser: Any) -> Any:
    group = parser.add_argument_group("running")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: auto)")
    group.add_argument("--threads", type=_count, metavar="N", help="CPU threads (default: torch's choice)")
    group.add_argument("--quiet", action="store_true", help="print warnings and errors only")
    return group


def _add_overwrite(group: Any) -> None:
    group.add_argument("--overwrite", action="store_true", help="replace what is in the output folder")


class _Parser(argparse.ArgumentParser):
    """A parser whose description and epilog keep their lines."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **options)


def _number(text: str) -> float:
    value = float(text)
    if math.isnan(value):
        raise argparse.ArgumentTypeError("must be a number, inf included; got nan")
    return value


def _positive(text: str) -> float:
    return _checked(text, _number, lambda value: 0 < value < math.inf, "a positive number")


def _rate(text: str) -> float:
    return _checked(text, _number, lambda value: 0 < value < 1, "a rate between 0 and 1, both excluded")


def _share(text: str) -> float:
    return _checked(text, _number, lambda value: 0 <= value <= 1, "a share from 0 to 1")


def _count(text: str) -> int:
    return _checked(text, int, lambda value: value >= 1, "a whole number of at least 1")


def _ending(text: str) -> str:
    return _checked(text, str, bool, "the ending of file names")


def _index(text: str) -> int:
    return _checked(text, int, lambda value: value >= 0, "a whole number of at least 0")


def _n_bytes(text: str) -> int:
    return _checked(text, _bytes_of, lambda value: value >= 1, "a number of bytes, such as 500M or 4G")


def _bytes_of(text: str) -> int:
    unit = _UNITS.get(text[-1:].upper(), 1)
    return int(text[:-1]) * unit if unit > 1 else int(text)


def _path(text: str) -> Path:
    return _checked(text, Path, lambda path: text != "", "a path")


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
