"""The report: one self-contained HTML file about a folder of scored scans."""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

import skmimood
from skmimood.jobs.files import write
from skmimood.jobs.results import ScanOutcome
from skmimood.plotting import COLUMNS, ColourScale, colour_ramp, gallery_tiles

if TYPE_CHECKING:
    from skmimood.scans import Gallery

MAX_PICTURED = 200
"""Number of scans, those of the highest scores, that a report shows pictures of, so that browsers open it."""

MISSING = 'No report.html: it needs matplotlib and jinja2. Install them with: pip install "skmimood[report]"'

_GAP = 4  # white pixels between the pictures of one slice
_MIN_PICTURE_PIXELS = 180  # smaller pictures are enlarged, so that browsers need not blur them


def can_report() -> bool:
    """Tell whether the optional packages that a report needs are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("matplotlib", "jinja2"))


def write_report(
    path: Path,
    outcomes: Sequence[ScanOutcome],
    *,
    scale: ColourScale,
    facts: Mapping[str, str],
    galleries: Callable[[str], Gallery | None],
    page_of: Callable[[str], Path],
) -> None:
    """Write the report, or replace it.

    ``facts`` are what to say of the model, by name. ``galleries`` is called for one scan at a time and returns its most
    anomalous slices, or None if they are lost. ``page_of`` tells where the page of a scan would be, beside the report.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("skmimood.jobs", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    finished = [outcome for outcome in outcomes if outcome.status == "ok"]
    pictured = finished[:MAX_PICTURED]
    parts = environment.get_template("report.html").generate(
        version=skmimood.__version__,
        outcomes=outcomes,
        verdicts=Counter(outcome.verdict for outcome in outcomes),
        cards=(
            (outcome, _link(page_of(outcome.id)), _strips(galleries(outcome.id), scale))
            for outcome in pictured
        ),
        n_not_pictured=len(finished) - len(pictured),
        columns=COLUMNS,
        facts=facts,
        scale=scale,
        ramp=_data_uri(colour_ramp()),
    )
    write(path, parts)


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
            gallery = Gallery(images, healed, arrays["maps"], arrays["masks"], arrays["indices"])
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    shapes = {part.shape for part in (images, healed, gallery.maps, gallery.masks)}
    is_whole = len(shapes) == 1 and images.ndim == 3 and gallery.indices.shape == images.shape[:1]
    return gallery if is_whole else None


def _strips(gallery: Gallery | None, scale: ColourScale) -> list[tuple[int, str]] | None:
    """Return the number of each slice, and its pictures side by side as a data URI; None if they are lost."""
    if gallery is None:
        return None
    tiles = gallery_tiles(gallery, scale)
    factor = -(-_MIN_PICTURE_PIXELS // max(tiles.shape[2:4]))
    tiles = tiles.repeat(factor, axis=2).repeat(factor, axis=3)
    tiles = np.pad(tiles, [(0, 0)] * 3 + [(0, _GAP), (0, 0)], constant_values=255)
    strips = [np.concatenate(list(row), axis=1)[:, :-_GAP] for row in tiles]
    return [(int(index), _data_uri(strip)) for index, strip in zip(gallery.indices, strips, strict=True)]


def _link(page: Path) -> str | None:
    """Return the address of a page in the same folder; None if there is none."""
    return quote(os.fsencode(page.name)) if page.is_file() else None


def _data_uri(pixels: np.ndarray) -> str:
    """Return pixels (H, W, 3), uint8, as a PNG that stands in the page itself."""
    from matplotlib.image import imsave

    stream = io.BytesIO()
    # Without metadata the same pictures give the same report.
    metadata: dict[str, Any] = {"Software": None}
    imsave(stream, np.ascontiguousarray(pixels), format="png", metadata=metadata)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
