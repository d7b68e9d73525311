"""The viewer: one self-contained page about one scan, to look through its slices with the map, mask and healed scan."""

from __future__ import annotations

import base64
import gzip
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

import skmimood
from skmimood.exceptions import InputError
from skmimood.jobs.files import write
from skmimood.jobs.results import ScanOutcome
from skmimood.nifti.geometry import in_millimetres
from skmimood.plotting import ColourScale
from skmimood.plotting.pictures import coloured

if TYPE_CHECKING:
    from nibabel import Nifti1Image

    from skmimood.maps.conformal import HealthyReference
    from skmimood.scans import ScanResult

NIIVUE = "niivue/niivue-0.69.0.umd.js"

_AT_THRESHOLD = 100  # the level of the pixel threshold; the last of the 255 levels is 6.5 times as high
_HEADROOM = 1.25  # grey values reach beyond the window, so that it can be widened
_MAX_SIDE = 384  # voxels along each side; of larger scans, every second, third, ... is shown


def write_viewer(
    path: Path, outcome: ScanOutcome, result: ScanResult, scale: ColourScale, reference: HealthyReference
) -> None:
    """Write the page about one scan, or replace it.

    Browsers open it as a file, without a network. ``scale`` gives the pixel threshold and the colours; beside each
    threshold that can be chosen stands the rate at which healthy pixels exceed it, by ``reference``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("skmimood.jobs", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    scripts, styles = (_template(NIIVUE), _template("viewer.js")), (_template("viewer.css"),)
    parts = environment.get_template("viewer.html").generate(
        version=skmimood.__version__,
        outcome=outcome,
        n_modalities=result.n_modalities,
        calibrated=scale.is_calibrated,
        scripts=map(Markup, scripts),
        styles=map(Markup, styles),
        script_hashes=list(map(_hash, scripts)),
        style_hashes=list(map(_hash, styles)),
        content=_content(result, scale, reference),
    )
    write(path, parts)


def levels_of(scale: ColourScale) -> np.ndarray:
    """Return the thresholds that can be chosen, ascending, shape (255,), float32.

    They are finer for low values; number 100 is the pixel threshold.
    """
    return np.float32(scale.threshold) * np.square(np.arange(255, dtype=np.float32) / _AT_THRESHOLD)


def _content(result: ScanResult, scale: ColourScale, reference: HealthyReference) -> dict[str, Any]:
    """Return what the script of the page needs, as JSON values."""
    if (scan := result.scan) is None:
        raise InputError(f"{result.id} was made without its scan. Detect it again.")
    levels = levels_of(scale)
    anomaly, affine = _thinned(result.anomaly)
    # The code of a voxel is the number of thresholds below its value, so that rounding blurs none of them.
    codes = np.searchsorted(levels, anomaly).astype(np.uint8)
    peak = np.unravel_index(int(anomaly.argmax()), anomaly.shape)
    return {
        "volumes": {
            "scan": _grey(scan, scan),
            "healed": _grey(result.healed, scan),
            "map": _encoded(nib.Nifti1Image(codes, affine)),
            "mask": _encoded(nib.Nifti1Image(*_thinned(result.mask))),
        },
        "levels": [float(f"{level:.4g}") for level in levels],
        "rates": [float(f"{reference.pixel_fpr(float(level)):.3g}") for level in levels],
        "start": _AT_THRESHOLD,
        "colours": coloured(np.append(levels, np.float32(scale.highest)), scale).T.tolist(),
        "peak": [round(float(mm), 2) for mm in apply_affine(affine, peak)],
    }


def _grey(image: Nifti1Image, like: Nifti1Image) -> str:
    """Encode an image in 256 grey values, over somewhat more than the window of another."""
    low, high = (float(like.header[bound]) for bound in ("cal_min", "cal_max"))
    slope = _HEADROOM * (high - low) / 255
    voxels, affine = _thinned(image)
    grey = nib.Nifti1Image(((voxels - low) / slope).clip(0, 255).round().astype(np.uint8), affine)
    grey.header.set_slope_inter(slope, low)
    grey.header["cal_min"], grey.header["cal_max"] = low, high
    return _encoded(grey)


def _thinned(image: Nifti1Image) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `_MAX_SIDE` voxels along each of three axes, 0 where they are NaN, and their affine in mm."""
    volume = np.asanyarray(image.dataobj).reshape((*image.shape, 1)[:3])
    steps = [-(-side // _MAX_SIDE) for side in volume.shape]
    thinned = volume[tuple(slice(None, None, step) for step in steps)]
    return np.nan_to_num(thinned), in_millimetres(image.affine, image.header) @ np.diag([*steps, 1.0])


def _encoded(image: Nifti1Image) -> str:
    return base64.b64encode(gzip.compress(image.to_bytes(), mtime=0)).decode("ascii")


def _template(name: str) -> str:
    return (files("skmimood.jobs") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what a content security policy calls a script or a style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
