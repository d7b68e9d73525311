"""What the command line understands: options whose names are the fields of `FitJob` and `ScoreJob`."""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skmimood import __version__

# Nothing heavy is imported here: --help must not wait for torch.

# Descriptions and epilogs keep their lines.
_Parser: Any = functools.partial(
    argparse.ArgumentParser, formatter_class=argparse.RawDescriptionHelpFormatter
)

_PRESETS = ("toy", "tiny", "small", "paper")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_VIEWERS = ("none", "flagged", "all")
_PLANES = ("axial", "coronal", "sagittal")

_DESCRIPTION = """\
Find what is abnormal in medical scans, having learnt from healthy scans only.
Research use only: not a medical device.
"""

_EXAMPLES = """\
examples:
  skmimood demo                              everything on artificial brains, no data needed
  skmimood fit healthy/ -o model/            learn from a folder of healthy scans
  skmimood score scans/ -m model/ -o out/    map what is abnormal in others
  skmimood evaluate out/ masks/              compare them with lesion masks
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

Scans are files (.nii.gz, .nii, .mgz, .nrrd, .mha) or folders with a DICOM series each. Some are held out, and
the thresholds are set on those.
"""

_SCORE_EXAMPLES = """\
examples:
  skmimood score scans/ -m model/ -o out/
  skmimood score patient.nii.gz -m model/ -o out/
  skmimood score scans/ -m model/ -o out/ --resume  do what is missing or has failed
  skmimood score scans/ -m model/ -o out/ --jobs 4  four scans at a time
  skmimood score scans/ -m model/ -o out/ --healed  the healed scans too
  skmimood score scans/ -m model/ -o out/ --fpr 0.001
                                                    masks of other rates than fit was given
  skmimood score brains/ -m model/ -o out/ --mask-suffix auto
                                                    brains without skull, which need no masks

For each scan, on its own grid: <id>_anomaly.nii.gz (the map), <id>_pvalue.nii.gz (share of healthy pixels
that score as high), <id>_mask.nii.gz (map above the pixel threshold), its parts numbered in
<id>_lesions.nii.gz and measured in <id>_lesions.csv; with --healed, <id>_healed.nii.gz too.
For scans called anomalous, <id>.html shows all of them in three planes, in any browser. For all: scores.csv,
status.json and report.html.
"""

_EVALUATE_EXAMPLES = """\
examples:
  skmimood evaluate out/ masks/
  skmimood evaluate out/ patients/ --lesion-suffix seg --unmasked-healthy

Prints and writes, for each scan and for all voxels together: lesions found and false alarms, Dice of the
masks, best Dice, average precision and AUROC of the maps, and the false-positive rate of the masks. A mask
is named as its scan, or with another last part. A scan whose mask is empty is healthy.
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
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True, parser_class=_Parser
    )
    _fill_demo(commands.add_parser("demo", help="see it work on artificial brains", epilog=_DEMO_EXAMPLES))
    _fill_fit(commands.add_parser("fit", help="learn from healthy scans", epilog=_FIT_EXAMPLES))
    _fill_score(commands.add_parser("score", help="map what is abnormal in scans", epilog=_SCORE_EXAMPLES))
    _fill_evaluate(
        commands.add_parser("evaluate", help="compare results with lesion masks", epilog=_EVALUATE_EXAMPLES)
    )
    _fill_info(commands.add_parser("info", help="show what a model is made of", epilog=_INFO_EXAMPLES))
    return parser


def _fill_fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="folders, globs or files of healthy scans")
    parser.add_argument("-o", "--output", type=_path, required=True, help="folder for the model")
    parser.add_argument(
        "--preset", choices=_PRESETS, default="tiny", help="size of the networks (default: tiny)"
    )
    group = _add_choice(parser, "auto", "2G", "0.01", "auto")
    text = "ending of lesion masks beside the scans; slices with lesions are dropped"
    _add(group, "--lesion-suffix", _ending, "SUFFIX", text, dest="lesions")
    text = (
        "table (columns subject, group) of scans that belong together: those of one group are never divided between "
        "training and calibration (default: by subject, sub-XX in BIDS names)"
    )
    _add(group, "--groups", _path, "TABLE", text)
    group = parser.add_argument_group("how they are seen")
    group.add_argument(
        "--plane", choices=_PLANES, default="axial", help="direction of the slices (default: axial)"
    )
    _add(group, "--spacing", _positive, "MM", "pixel size (default: the smallest that crops no scan)")
    _add(group, "--size", _count, "N", "pixels along each side of a slice (default: the preset's)")
    text = "smooth the maps across slices by a Gaussian of this standard deviation; 0 for single slices (default: 5)"
    _add(group, "--slice-smoothing", _not_negative, "MM", text)
    group = parser.add_argument_group("training and thresholds")
    _add(group, "--max-iter", _count, "N", "training steps of each network (default: the preset's)")
    _add(group, "--fpr", _rate, "F", "false-positive rate among healthy pixels (default: 0.01)")
    _add(group, "--scan-fpr", _rate, "F", "false-positive rate among healthy scans (default: 0.1)")
    _add_seed(group)
    group = _add_running(parser)
    _add_flag(group, "--overwrite", "replace a model, once a new one is trained")
    _add_flag(group, "--resume", "go on with an interrupted training; with --overwrite to replace a model")
    _add(parser, "--cache", _path, "DIR", "keep trained networks here for later equal fits")


def _fill_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="folders, globs or files of scans")
    parser.add_argument("-m", "--model", type=_path, required=True, help="folder that fit has written")
    parser.add_argument("-o", "--output", type=_path, required=True, help="folder for the results")
    _add_choice(parser, None, *["the model's"] * 3)
    group = parser.add_argument_group("thresholds, by their rates or as they are (default: the model's)")
    pixels, scans = group.add_mutually_exclusive_group(), group.add_mutually_exclusive_group()
    _add(pixels, "--fpr", _rate, "F", "false-positive rate of the masks among healthy pixels")
    _add(pixels, "--pixel-threshold", _number, "X", "threshold of the masks, in units of the map")
    _add(scans, "--scan-fpr", _rate, "F", "false-positive rate of the verdicts among healthy scans")
    _add(scans, "--scan-threshold", _number, "X", "threshold of the verdicts, in units of the score")
    group = _add_running(parser)
    text = (
        "scans to score at the same time, each in a process of its own with its share of the CPU threads, or with "
        "--threads of them (default: 1)"
    )
    _add(group, "--jobs", _count, "N", text, dest="n_jobs")
    existing = group.add_mutually_exclusive_group()
    _add_flag(existing, "--resume", "keep what is finished and do the rest; such jobs may share a folder")
    _add_flag(existing, "--overwrite", "replace earlier results, once a scan can be scored")
    _add_flag(parser, "--healed", "write <id>_healed.nii.gz too, the scan without what is abnormal")
    _add_flag(parser, "--bids", "write BIDS derivatives, such as sub-01/anat/sub-01_label-lesion_roi.nii.gz")
    parser.add_argument(
        "--viewer", choices=_VIEWERS, default="flagged",
        help="scans that get a page <id>.html to look through: none, those called anomalous (flagged), or all "
        "(default: flagged)",
    )  # fmt: skip
    parser.add_argument(
        "--no-report", dest="report", action="store_false", help="write no report and no pages"
    )


def _fill_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=_path, help="folder that score has written")
    parser.add_argument("masks", nargs="+", metavar="MASKS", help="folders, globs or files of lesion masks")
    _add(
        parser,
        "--lesion-suffix",
        _ending,
        "SUFFIX",
        "ending of the names of masks, where other files lie too",
    )
    _add_flag(parser, "--unmasked-healthy", "scans without a mask are healthy (default: they are left out)")
    text = "where the table is written (default: evaluation.csv beside the results)"
    _add(parser, "--output", _path, "FILE", text)


def _fill_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=_path, help="folder that fit has written")
    _add_flag(parser, "--json", "print JSON; null stands for an infinite threshold")


def _fill_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", type=_path, default=Path("demo"), help="folder for everything (default: demo/)"
    )
    _add_seed(parser)
    _add_flag(_add_running(parser), "--overwrite", "replace an earlier demo")


def _add_choice(parser: argparse.ArgumentParser, mask: str | None, *shown: str) -> Any:
    """Add the choice of files, with the default of the mask and what is said of the defaults."""
    size, share, shown_mask = shown
    group = parser.add_argument_group("which scans")
    text = "only files whose names end in this, such as T1; of T1w,FLAIR, one scan has both"
    _add(group, "--modality", str, "SUFFIX", text)
    _add(group, "--split", str, "NAME", "only subjects of this split in splits.csv (columns subject, split)")
    _add(group, "--volume", _index, "N", "which volume of 4-D scans to take, counted from 0")
    _add(group, "--max-bytes", _n_bytes, "N", f"refuse scans of more bytes, such as 4G (default: {size})")
    text = f"refuse scans with NaN in a larger share of the head (default: {share})"
    _add(group, "--max-invalid", _share, "F", text)
    text = (
        "ending of the brain mask beside each scan, which strips the skull; auto finds head or bare brain from the "
        f"intensities, ct-brain the brain in head CT, none takes every voxel (default: {shown_mask})"
    )
    _add(group, "--mask-suffix", _ending, "SUFFIX", text, dest="mask", default=mask)
    return group


def _add_running(parser: argparse.ArgumentParser) -> Any:
    group = parser.add_argument_group("running")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: auto)")
    _add(group, "--threads", _count, "N", "CPU threads (default: torch's choice)", dest="n_threads")
    group.add_argument("--quiet", dest="verbose", action="store_false", help="print warnings and errors only")
    return group


def _add_seed(group: Any) -> None:
    _add(group, "--seed", _seed, "N", "seed of everything random (default: 0)", default=0)


def _add(group: Any, name: str, convert: Callable[[str], Any], metavar: str, text: str, **more: Any) -> None:
    group.add_argument(name, type=convert, metavar=metavar, help=text, **more)


def _add_flag(group: Any, name: str, text: str) -> None:
    group.add_argument(name, action="store_true", help=text)


def _checked(
    convert: Callable[[str], Any], is_fine: Callable[[Any], bool], wanted: str
) -> Callable[[str], Any]:
    """Return a converter of an argument that says what is wanted where ``is_fine`` is not true of its value."""

    def checked(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not is_fine(value):
            raise argparse.ArgumentTypeError(f"must be {wanted}; got {text!r}")
        return value

    return checked


def _bytes_of(text: str) -> int:
    unit = _UNITS.get(text[-1:].upper(), 1)
    return int(text[:-1]) * unit if unit > 1 else int(text)


_number = _checked(float, lambda value: not math.isnan(value), "a number, inf included")
_positive = _checked(float, lambda value: 0 < value < math.inf, "a positive number")
_not_negative = _checked(float, lambda value: 0 <= value < math.inf, "a number of at least 0")
_rate = _checked(float, lambda value: 0 < value < 1, "a rate between 0 and 1, both excluded")
_share = _checked(float, lambda value: 0 <= value <= 1, "a share from 0 to 1")
_count = _checked(int, lambda value: value >= 1, "a whole number of at least 1")
_index = _checked(int, lambda value: value >= 0, "a whole number of at least 0")
_seed = _checked(int, lambda value: 0 <= value < 2**32, "a whole number from 0 to 4294967295")
_n_bytes = _checked(_bytes_of, lambda value: value >= 1, "a number of bytes, such as 500M or 4G")
_ending = _checked(str, bool, "the ending of file names")
_path = _checked(lambda text: Path(text) if text else None, lambda path: True, "a path")
