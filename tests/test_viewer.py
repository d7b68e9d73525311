import base64
import gzip
import hashlib
import io
import json
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser

import nibabel as nib
import numpy as np
import pytest
from toy_scans import image, make, write_healthy_scans

from skmimood.exceptions import SkmimoodWarning
from skmimood.jobs.results import ScanOutcome, page_of, wants_page
from skmimood.jobs.viewer import levels_of, write_viewer
from skmimood.plotting import ColourScale

HOSTILE = "\"'></script><!--<script>alert(1)</script><img src=x onerror=alert(1)>é{{ 7 * 7 }}"


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkmimoodWarning)
        return make(calibration_fraction=0.3).fit(write_healthy_scans(tmp_path_factory.mktemp("healthy")))


@pytest.fixture(scope="module")
def result(detector):
    return detector.detect_scan(image(21, lesion=True))


def write(path, detector, result, name="a"):
    outcome = ScanOutcome(name, "ok", result.score, result.pvalue, result.is_anomalous)
    write_viewer(path, outcome, result, ColourScale.of(detector), detector.reference_)
    return path.read_text(encoding="utf-8")


def content(html):
    return json.loads(re.search(r'<script type="application/json" id="content">(.*?)</script>', html)[1])


def volume(html, name):
    file = io.BytesIO(gzip.decompress(base64.b64decode(content(html)["volumes"][name])))
    return nib.Nifti1Image.from_stream(file)


class Page(HTMLParser):
    """Collects what browsers would see: tags, the attributes of each, scripts and styles, and all other text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.parts, self.text = [], [], {"script": [], "style": []}, ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        if self.cdata_elem:
            self.parts[self.cdata_elem].append(data)
        else:
            self.text += data


def test_the_page_lets_nothing_run_or_load_but_what_it_holds(detector, result, tmp_path):
    html = write(tmp_path / "a.html", detector, result)
    page, policy = Page(html), re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    for tag, parts in (("script", page.parts["script"][1:]), ("style", page.parts["style"])):
        digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts]
        allowed = re.search(rf"{tag}-src([^;]*);", policy)[1].split()
        assert allowed == [f"'sha256-{digest}'" for digest in digests]
    names = {name for name, _ in page.attributes}
    assert not names & {"src", "style"}
    assert not any(name.startswith("on") for name in names)
    assert [value for name, value in page.attributes if name == "href"] == ["report.html"]
    assert len(html) < 2.5e6


def test_vulnerability_injection_whatever_a_scan_is_called_is_text_in_its_page(detector, result, tmp_path):
    plain, page = (Page(write(tmp_path / "a.html", detector, result, name)) for name in ("plain", HOSTILE))
    assert page.tags == plain.tags
    assert page.text == plain.text.replace("plain", HOSTILE)
    assert page.text.count(HOSTILE) == 2


def test_every_threshold_shows_the_voxels_above_it_and_their_rate_among_healthy_ones(
    detector, result, tmp_path
):
    html = write(tmp_path / "a.html", detector, result)
    anomaly, codes = result.anomaly.get_fdata(dtype=np.float32), volume(html, "map").get_fdata()
    told, levels = content(html), levels_of(ColourScale.of(detector))
    for number in (0, 1, told["start"], 200, 254):
        assert np.array_equal(codes > number, anomaly > levels[number])
        assert told["levels"][number] == pytest.approx(levels[number], rel=1e-3)
        assert told["rates"][number] == pytest.approx(detector.reference_.pixel_fpr(levels[number]), rel=0.01)
    assert levels[told["start"]] == np.float32(detector.pixel_threshold_)
    assert np.array_equal(codes > told["start"], volume(html, "mask").get_fdata())
    assert told["rates"] == sorted(told["rates"], reverse=True)


def test_scan_and_healed_scan_are_shown_on_their_grid_in_one_window(detector, result, tmp_path):
    html = write(tmp_path / "a.html", detector, result)
    for name, shown in (("scan", image(21, lesion=True)), ("healed", result.healed)):
        part = volume(html, name)
        window = [float(part.header[bound]) for bound in ("cal_min", "cal_max")]
        assert window == [float(result.scan.header[bound]) for bound in ("cal_min", "cal_max")]
        assert np.array_equal(part.affine, result.anomaly.affine)
        given = shown.get_fdata().clip(window[0], window[0] + 1.25 * (window[1] - window[0]))
        assert np.abs(part.get_fdata() - given).max() <= 0.6 * 1.25 * (window[1] - window[0]) / 255


def test_the_page_opens_where_the_map_is_highest(detector, result, tmp_path):
    anomaly = result.anomaly.get_fdata()
    voxel = np.linalg.inv(result.anomaly.affine) @ [
        *content(write(tmp_path / "a.html", detector, result))["peak"],
        1,
    ]
    assert anomaly[tuple(voxel[:3].round().astype(int))] == anomaly.max()


def test_large_scans_are_thinned_and_stay_where_they_are(detector, result, tmp_path, monkeypatch):
    monkeypatch.setattr("skmimood.jobs.viewer._MAX_SIDE", 20)
    part = volume(write(tmp_path / "a.html", detector, result), "mask")
    assert part.shape == (15, 18, 20)
    assert np.array_equal(part.get_fdata(), result.mask.get_fdata()[::2, ::2])
    assert np.array_equal(part.affine, result.mask.affine @ np.diag([2, 2, 1, 1]))


def test_missing_voxels_other_units_and_shapes_with_trailing_ones_can_be_shown(detector, tmp_path):
    data = image(21, lesion=True).get_fdata(dtype=np.float32)
    data[0, 0, :3] = np.nan
    given = nib.Nifti1Image(data[..., np.newaxis], np.diag([0.002, 0.002, 0.002, 1]))
    given.header.set_xyzt_units("meter")
    part = volume(write(tmp_path / "a.html", detector, detector.detect_scan(given)), "mask")
    assert part.shape == data.shape
    assert np.allclose(part.affine, np.diag([2, 2, 2, 1]))


def test_the_same_results_give_the_same_page(detector, result, tmp_path):
    pages = [write(tmp_path / name, detector, result) for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_pages_are_for_scans_called_anomalous_unless_asked_otherwise(tmp_path):
    wanted = {
        viewer: [wants_page(viewer, is_so) for is_so in (True, False, None)] for viewer in ("none", "all")
    }
    assert wanted == {"none": [False] * 3, "all": [True] * 3}
    assert [wants_page("flagged", is_so) for is_so in (True, False, None)] == [True, False, False]
    assert page_of(tmp_path, "a b") == tmp_path / "a b.html"
    assert page_of(tmp_path, "Report").name.casefold() != "report.html"


def test_a_threshold_set_by_hand_is_where_the_page_starts(detector, result, tmp_path):
    other = replace(ColourScale.of(detector), threshold=0.5)
    assert levels_of(other)[100] == 0.5
