"""The report: one self-contained HTML file about a folder of scored scans."""

from __future__ import annotations

import base64
import importlib.util
import io
import math
import os
import shlex
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import numpy as np

import skmimood
from skmimood.jobs.charts import ROW, SPARK, WIDTH, ScoreAxis, scattered, sparkline
from skmimood.jobs.files import write
from skmimood.jobs.results import ScanOutcome
from skmimood.plotting import COLUMNS, ColourScale, colour_ramp, gallery_tiles
from skmimood.scans.results import written_paths

if TYPE_CHECKING:
    from skmimood.preprocessing import Plane
    from skmimood.scans import Gallery

MAX_PICTURED = 200
"""Number of scans, those of the highest scores, that a report shows pictures of, so that browsers open it."""

MISSING = 'No report.html: it needs matplotlib and jinja2. Install them with: pip install "skmimood[report]"'

_QUALITY = 90  # of grey pictures; maps and masks lose nothing
_GAP = 4  # pixels between the pictures of one slice
_VIEWS = {  # what lies left and right in a picture, in letters and words, and the way from the first slice to the last
    "axial": ("L", "R", "left and right", "bottom to top"),
    "coronal": ("L", "R", "left and right", "back to front"),
    "sagittal": ("P", "A", "back and front", "left to right"),
}
_HIGHEST = 4  # of sparklines, in thresholds


@dataclass(frozen=True, eq=False)
class About:
    """What a report says of the model: ``facts`` by name, ``methods`` as paragraphs, and what scores are compared with.

    ``healthy`` are the scores of the held-out healthy scans.
    """

    scale: ColourScale
    plane: Plane
    healthy: Sequence[float]
    scan_threshold: float
    facts: Mapping[str, str]
    methods: Sequence[str]


class Slice(NamedTuple):
    """One slice in pictures, as data URIs, and in numbers: the peak of its map, and the pixels above the threshold."""

    number: int
    scan: str
    healed: str
    map: str
    mask: str
    peak: float
    n_above: int


class Card(NamedTuple):
    """What a report shows of one scan: slices (None if lost), the map's height along all of them, and its files."""

    outcome: ScanOutcome
    slices: list[Slice] | None
    size: tuple[int, int]
    profile: str
    page: str | None
    command: str


def can_report() -> bool:
    """Tell whether the optional packages that a report needs are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("matplotlib", "jinja2"))


def write_report(
    path: Path,
    outcomes: Sequence[ScanOutcome],
    about: About,
    *,
    galleries: Callable[[str], Gallery | None],
    page_of: Callable[[str], Path],
) -> None:
    """Write the report, or replace it.

    ``galleries`` is called for one scan at a time and returns its most anomalous slices, or None if they are lost.
    ``page_of`` tells where the page of a scan would be, beside the report.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("skmimood.jobs", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    finished = [outcome for outcome in outcomes if outcome.status == "ok"]
    pictured = finished[:MAX_PICTURED]
    scores = [float(outcome.score or 0) for outcome in finished]
    is_finite = math.isfinite(about.scan_threshold)
    axis = ScoreAxis.of([*scores, *about.healthy, *([about.scan_threshold] if is_finite else [])])
    parts = environment.get_template("report.html").generate(
        version=skmimood.__version__,
        outcomes=outcomes,
        finished=finished,
        failed=[outcome for outcome in outcomes if outcome.status != "ok"],
        verdicts=Counter(outcome.verdict for outcome in outcomes),
        cards=[
            _card(outcome, galleries(outcome.id), about.scale, page_of(outcome.id)) for outcome in pictured
        ],
        columns=COLUMNS,
        view=_VIEWS[about.plane],
        about=about,
        axis=axis,
        places=scattered(axis, scores),
        healthy_places=scattered(axis, about.healthy),
        middle=[axis.place(score) for score in np.quantile(about.healthy, [0.25, 0.5, 0.75])],
        threshold=axis.place(about.scan_threshold) if is_finite else None,
        ramp=_data_uri(colour_ramp()),
        chart={"limit": 1 - 1 / _HIGHEST, "width": WIDTH, "row": ROW, "spark": SPARK, "gap": _GAP},
    )
    write(path, parts)


def _card(outcome: ScanOutcome, gallery: Gallery | None, scale: ColourScale, page: Path) -> Card:
    command, written = "", written_paths(page.parent, outcome.id)
    if outcome.source and written:
        anomaly, _, mask, *_ = (str(file.relative_to(page.parent)) for file in written)
        command = shlex.join(["itksnap", "-g", outcome.source, "-o", anomaly, "-s", mask])
    link = quote(os.fsencode(page.name)) if page.is_file() else None
    if gallery is None:
        return Card(outcome, None, (0, 0), "", link, command)
    profile = sparkline(gallery.profile, _HIGHEST * scale.threshold) if len(gallery.profile) else ""
    return Card(outcome, _slices(gallery, scale), gallery.images.shape[1:], profile, link, command)


def _slices(gallery: Gallery, scale: ColourScale) -> list[Slice]:
    """Return the slices of a gallery in pictures."""
    tiles = gallery_tiles(gallery, scale)
    outlines = np.concatenate([tiles[:, 3], 255 * gallery.masks[..., None].astype(np.uint8)], axis=-1)
    return [
        Slice(
            number=int(gallery.indices[k]),
            scan=_data_uri(tiles[k, 0, ..., 0], _QUALITY),
            healed=_data_uri(tiles[k, 1, ..., 0], _QUALITY),
            map=_data_uri(tiles[k, 2]),
            mask=_data_uri(outlines[k]),
            peak=float(gallery.maps[k].max()),
            n_above=int(gallery.masks[k].sum()),
        )
        for k in range(len(tiles))
    ]


def save_gallery(path: Path, gallery: Gallery) -> None:
    """Keep the slices of one scan for a report that is written later, in a small file."""
    buffer = io.BytesIO()
    pictures = {"images": gallery.images, "healed": gallery.healed}
    bytes_of = {name: (255 * part.clip(0, 1)).round().astype(np.uint8) for name, part in pictures.items()}
    np.savez_compressed(buffer, **{**vars(gallery), **bytes_of})
    write(path, buffer.getvalue())


def load_gallery(path: Path) -> Gallery | None:
    """Read what `save_gallery` wrote; None if it is missing or damaged."""
    from skmimood.scans import Gallery

    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            images, healed = (arrays[name].astype(np.float32) / 255 for name in ("images", "healed"))
            profile = (
                arrays["profile"] if "profile" in arrays else np.empty(0, np.float32)
            )  # of earlier versions
            gallery = Gallery(images, healed, arrays["maps"], arrays["masks"], arrays["indices"], profile)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    shapes = {part.shape for part in (images, healed, gallery.maps, gallery.masks)}
    is_whole = len(shapes) == 1 and images.ndim == 3 and gallery.indices.shape == images.shape[:1]
    is_whole = is_whole and gallery.profile.ndim == 1
    return gallery if is_whole else None


def _data_uri(pixels: np.ndarray, quality: int | None = None) -> str:
    """Return pixels (H, W), (H, W, 3) or (H, W, 4), uint8, as a picture that stands in the page itself."""
    from PIL import Image

    stream = io.BytesIO()
    options = {"lossless": True, "method": 1} if quality is None else {"quality": quality}
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="webp", **options)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
