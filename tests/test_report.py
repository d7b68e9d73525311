import base64
import io
import json
import math
import re
import shlex
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from skmimood.datasets import make_brain_phantom
from skmimood.exceptions import InputError, ScanWriteError
from skmimood.jobs.charts import WIDTH, ScoreAxis, scattered
from skmimood.jobs.files import printable, to_json, write
from skmimood.jobs.report import MAX_PICTURED, About, load_gallery, save_gallery, write_report
from skmimood.jobs.results import ScanOutcome, StatusTable
from skmimood.plotting import (
    COLUMNS,
    ColourScale,
    colour_ramp,
    gallery_tiles,
    overlay,
)
from skmimood.scans import Gallery
from skmimood.scans.results import OUTPUTS, output_stem, result_paths

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>é{{ 7 * 7 }}"


def make_gallery(seed=0, highest=1.0, k=2):
    rng = np.random.default_rng(seed)
    images, healed = rng.uniform(0, 1, (2, k, 24, 20)).astype(np.float32)
    maps = rng.uniform(0, highest, (k, 24, 20)).astype(np.float32)
    maps[0, 3, 4] = highest
    return Gallery(
        images, healed, maps, maps > 0.2, np.arange(k) + 7, np.linspace(0, highest, 9, dtype=np.float32)
    )


def make_outcome(scan, score=0.5, **others):
    return ScanOutcome(scan, "ok", score, 0.25, True, 1.5, **others)


def report(path, outcomes, galleries=lambda scan: make_gallery(), **about):
    told = {"facts": {"Model": "toy"}, "methods": ["We used a toy [1].", "[1] Toys."], "plane": "axial"}
    told |= {"scale": ColourScale(0.2), "healthy": [0.1, 0.2, 0.4], "scan_threshold": 0.3} | about
    pages = lambda scan: path.with_name(f"page {scan[:9]}.html")  # noqa: E731
    write_report(path, outcomes, About(**told), galleries=galleries, page_of=pages)
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects the tags, addresses and visible text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.sources, self.text, self.alts = ["document"], [], "", []
        self.ids, self.pictures = [], {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "style", "action")]
        self.alts += [value for name, value in attrs if name in ("alt", "aria-label")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag == "image":
            self.pictures[dict(attrs)["id"]] = dict(attrs)["href"]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        if self.tags[-1] not in ("style", "title"):
            self.text += data


def pixels_of(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,")))))


def test_the_report_loads_nothing_and_runs_nothing(tmp_path):
    html = report(tmp_path / "report.html", [make_outcome("a")])
    page = Page(html)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(source.startswith(("data:image/webp;base64,", "#")) for source in page.sources)
    assert {source[1:] for source in page.sources if source[0] == "#"} <= {*page.ids}
    assert len(page.ids) == len({*page.ids})
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert "http://" not in html
    assert "https://" not in html


def test_vulnerability_injection_whatever_a_file_is_called_is_text_in_the_report(tmp_path):
    outcomes = [
        make_outcome(HOSTILE, flags=(HOSTILE,)),
        ScanOutcome("failed" + HOSTILE, "failed", reason=HOSTILE),
    ]
    html = report(tmp_path / "report.html", outcomes, facts={HOSTILE: HOSTILE}, methods=[HOSTILE])
    page = Page(html)
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert page.text.count(HOSTILE) == 8
    assert sum(HOSTILE in alt for alt in page.alts) == 4


def test_scans_are_shown_by_falling_score_and_failed_ones_with_their_reason(tmp_path):
    table = StatusTable(tmp_path, {}, [make_outcome("low", 0.1), make_outcome("high", 0.9)])
    table.record(ScanOutcome("broken", "failed", reason="it is truncated"))
    text = Page(report(tmp_path / "report.html", table.outcomes)).text
    assert text.index("high") < text.index("low") < text.index("broken")
    assert "it is truncated" in text
    assert "2 anomalous, 1 failed." in text
    assert "Research use only" in text


def test_without_a_scan_threshold_there_are_no_verdicts(tmp_path):
    outcome = ScanOutcome("a", "ok", 0.5, 0.25)
    page = Page(report(tmp_path / "report.html", [outcome], scan_threshold=math.inf))
    text = page.text
    assert "1 no verdict" in text
    assert "the scan threshold is infinite" in text


def test_scans_link_to_the_pages_that_are_there(tmp_path):
    (tmp_path / "page a%?#'.html").write_text("")
    page = Page(report(tmp_path / "report.html", [make_outcome("a%?#'"), make_outcome("b")]))
    assert [source for source in page.sources if source.endswith(".html")] == ["page%20a%25%3F%23%27.html"]


def test_all_scans_share_one_colour_scale_whatever_their_values(tmp_path):
    galleries = {"low": make_gallery(1, highest=0.1), "high": make_gallery(1, highest=1.0)}
    outcomes = [make_outcome("high", 0.9), make_outcome("low", 0.1)]
    html = report(tmp_path / "report.html", outcomes, galleries=galleries.get)
    page = Page(html)
    brightest = [pixels_of(page.pictures[f"p{number}-0-map"]).sum(axis=-1).max() for number in (1, 2)]
    ramp = pixels_of(next(source for source in page.sources if source.startswith("data:")))[0].sum(axis=-1)
    assert brightest[0] == ramp[-1]
    assert brightest[1] == pytest.approx(ramp[round(255 * 0.1 / 0.4)], abs=3)
    assert "0.2 = pixel threshold" in html
    assert "0.4 and more" in html


def test_every_scan_has_a_row_a_dot_and_a_card(tmp_path):
    outcomes = [make_outcome("a", 0.9), make_outcome("b", 0.1), ScanOutcome("c", "failed", reason="oh")]
    page = Page(report(tmp_path / "report.html", outcomes, healthy=[0.1, 0.2]))
    for number in (1, 2):
        assert f"scan-{number}" in page.ids
        assert page.sources.count(f"#scan-{number}") == 2  # from its dot and from its row
        for part in ("scan", "mask", "map"):
            assert f"#p{number}-0-{part}" in page.sources
    assert page.tags.count("circle") == 2 + 2
    assert page.tags.count("polyline") == 2
    assert page.text.index("Methods") < page.text.index("Errors\n") < page.text.index("oh")


def test_the_line_that_opens_a_scan_in_itk_snap_is_quoted_for_a_shell(tmp_path):
    scan, source = "a b'$(x)", "../scans/a b'$(x).nii.gz"
    for path in result_paths(tmp_path, scan, healed=False):
        path.write_text("")
    page = Page(
        report(
            tmp_path / "report.html", [make_outcome(scan, source=source), make_outcome("gone", source="x")]
        )
    )
    lines = re.findall("In ITK-SNAP, from this folder: (.*)", page.text)
    files = ["-g", source, "-o", f"{scan}_anomaly.nii.gz", "-s", f"{scan}_mask.nii.gz"]
    assert [shlex.split(line) for line in lines] == [["itksnap", *files]]


def test_scan_and_healed_scan_flicker_and_the_mask_lies_on_the_scan(tmp_path):
    gallery = make_gallery()
    html = report(tmp_path / "report.html", [make_outcome("a")], galleries=lambda scan: gallery)
    page = Page(html)
    assert html.count('<use class="other" href="#p1-0-healed"/>') == 1
    assert ".flicker:hover .other { animation" in html
    mask = pixels_of(page.pictures["p1-0-mask"])
    assert np.array_equal(mask[..., 3] > 0, gallery.masks[0])
    grey = pixels_of(page.pictures["p1-0-scan"])[..., 0].astype(float)
    assert np.corrcoef(grey.ravel(), gallery.images[0].ravel())[0, 1] > 0.9


@pytest.mark.parametrize(("plane", "letters"), [("axial", "LR"), ("coronal", "LR"), ("sagittal", "PA")])
def test_pictures_carry_the_letters_of_their_sides(plane, letters, tmp_path):
    html = report(tmp_path / "report.html", [make_outcome("a")], plane=plane)
    assert re.findall(r'<text class="side"[^>]*>(.)</text>', html) == [*letters] * 2


def test_fifty_scans_make_a_report_of_less_than_five_megabytes(tmp_path):
    images, _ = make_brain_phantom(4, size=160, random_state=0)
    gallery = Gallery(images, images, images, images > 0.8, np.arange(4), np.ones(160, np.float32))
    report(
        tmp_path / "report.html", [make_outcome(str(k)) for k in range(50)], galleries=lambda scan: gallery
    )
    assert (tmp_path / "report.html").stat().st_size < 5e6


@pytest.mark.parametrize("scores", [[], [0.0], [-2.0, 0.0, 1e6], [1e-9, 1e9], [3.0, 3.0]])
def test_any_scores_lie_on_the_axis_in_their_order(scores):
    axis = ScoreAxis.of(scores)
    places = [axis.place(score) for score in scores]
    assert places == sorted(places)
    assert all(0 <= place <= WIDTH for place, _ in (*axis.ticks(), *scattered(axis, scores)))
    labels = [float(label) for _, label in axis.ticks()]
    assert labels == sorted({*labels})


def test_equal_values_have_equal_colours_in_every_scan():
    scale = ColourScale(0.2)
    first, second = make_gallery(1, highest=0.3), make_gallery(2, highest=3.0)
    second.maps[1, 2, 3] = first.maps[0, 1, 1]
    tiles = [gallery_tiles(gallery, scale) for gallery in (first, second)]
    column = COLUMNS.index("map")
    assert np.array_equal(tiles[0][0, column, 1, 1], tiles[1][1, column, 2, 3])


def test_the_scale_follows_from_the_calibrated_threshold_alone():
    class Detector:
        pixel_threshold_ = 0.3

        class reference_:  # noqa: N801
            pixel_values = np.array([0.1, 0.8])

    assert ColourScale.of(Detector) == ColourScale(0.3)
    assert ColourScale(0.3).highest == 0.6
    Detector.pixel_threshold_ = math.inf
    assert ColourScale.of(Detector) == ColourScale(0.4, is_calibrated=False)
    with pytest.raises(InputError, match="positive and finite"):
        ColourScale(math.inf)


def test_the_ramp_runs_from_dark_to_bright():
    brightness = colour_ramp().sum(axis=-1)[0].astype(int)
    assert brightness[0] < 20
    assert brightness[-1] > 600
    assert np.all(np.diff(brightness) >= -3)


def test_a_report_of_many_scans_pictures_those_of_the_highest_scores(tmp_path, monkeypatch):
    monkeypatch.setattr("skmimood.jobs.report.MAX_PICTURED", 3)
    assert MAX_PICTURED >= 100
    asked = []

    def galleries(scan):
        asked.append(scan)
        return make_gallery(k=1)

    outcomes = [make_outcome(f"scan-{i}", 1 - i / 10) for i in range(5)]
    page = Page(report(tmp_path / "report.html", outcomes, galleries=galleries))
    text = page.text
    assert {f"scan-{number}" for number in range(1, 6)} <= {*page.ids}
    assert asked == ["scan-0", "scan-1", "scan-2"]
    assert "Pictures of 2 scans with lower scores are left out" in text


def test_galleries_are_read_one_at_a_time_while_the_report_is_written(tmp_path):
    import weakref

    alive = []

    def galleries(scan):
        gallery = make_gallery()
        alive.append(weakref.ref(gallery))
        assert sum(each() is not None for each in alive) <= 2
        return gallery

    report(tmp_path / "report.html", [make_outcome(f"scan-{i}") for i in range(5)], galleries=galleries)
    assert len(alive) == 5


def test_lost_pictures_do_not_stop_a_report(tmp_path):
    html = report(tmp_path / "report.html", [make_outcome("a")], galleries=lambda scan: None)
    assert "The pictures of this scan are lost" in html


def test_a_gallery_survives_its_file(tmp_path):
    gallery = make_gallery()
    save_gallery(tmp_path / "a.npz", gallery)
    loaded = load_gallery(tmp_path / "a.npz")
    assert np.abs(loaded.images - gallery.images).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(loaded.maps, gallery.maps)
    assert np.array_equal(loaded.masks, gallery.masks)
    assert np.array_equal(loaded.indices, gallery.indices)
    assert np.array_equal(loaded.profile, gallery.profile)


@pytest.mark.parametrize("damage", [b"", b"text", None, "cut", "pickle", "shapes"])
def test_vulnerability_pickle_a_damaged_gallery_counts_as_lost(damage, tmp_path):
    path = tmp_path / "a.npz"
    gallery = make_gallery()
    save_gallery(path, gallery)
    if damage is None:
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "pickle":
        np.savez(path, **{**vars(gallery), "maps": np.array([{}], dtype=object)})
    elif damage == "shapes":
        np.savez(path, **{**vars(gallery), "maps": gallery.maps[:1]})
    else:
        path.write_bytes(damage)
    assert load_gallery(path) is None


def test_the_same_results_give_the_same_report(tmp_path):
    pages = [report(tmp_path / name, [make_outcome("a")]) for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


# Pictures


def test_a_mask_is_outlined_in_its_own_slice_only():
    masks = np.zeros((2, 9, 9), dtype=bool)
    masks[0, 2:7, 2:7] = True
    picture = overlay(np.full((2, 9, 9), 0.5), masks, (1.0, 0.0, 0.0))
    assert np.array_equal(picture[0, 2, 2], [255, 0, 0])
    assert picture[0, 4, 4, 0] > picture[0, 4, 4, 1]  # tinted
    assert np.all(picture[1] == 128)


# Tables and files


def test_vulnerability_injection_cells_that_a_spreadsheet_would_compute_get_a_quote(tmp_path):
    starts = ["=1+1", "+1", "-1", "@sum", "\tx", "safe"]
    table = StatusTable(
        tmp_path, {}, [make_outcome(start, score=-0.5 + i / 10) for i, start in enumerate(starts)]
    )
    table.record(ScanOutcome("x", "failed", reason="=cmd|' /C calc'!A0"))
    table.write_scores()
    text = (tmp_path / "scores.csv").read_text()
    for start in starts[:-1]:
        assert f"'{start}" in text
    assert "\nsafe," in text
    assert "'=cmd" in text
    assert "'=1+1,ok,-0.5,0.25,1,1.5,," in text  # a negative number stays a number


def test_json_is_strict_and_numbers_that_are_not_finite_become_null():
    assert json.loads(to_json({"a": [math.inf, (math.nan, 1.5)]})) == {"a": [None, [None, 1.5]]}


def test_names_of_results_fit_into_file_systems_and_stay_distinct():
    names = ["é" * 120 + ending for ending in ("a", "b")] + ["x" * 248]
    stems = [output_stem(name) for name in names]
    assert len(set(stems)) == 3
    assert all(len((stem + ending).encode()) <= 255 for stem in stems for ending in OUTPUTS)
    assert output_stem("plain") == "plain"


def test_a_text_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "status.json"
    write(path, "before")

    def full_disk(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skmimood.jobs.files.os.replace", full_disk)
    with pytest.raises(ScanWriteError, match=r"status\.json: No space left on device"):
        write(path, "after")
    monkeypatch.undo()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_text_for_a_terminal_cannot_steer_it():
    assert printable("a\nb\x1b[0m é") == "a\\nb\\x1b[0m é"
