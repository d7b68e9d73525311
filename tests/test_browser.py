"""The pages in a real browser; ``make browser`` installs what is needed, but for Chromium itself."""

import os
import shutil
import warnings

import pytest
from command_line import run
from toy_scans import image, save_model_of_toys

from skmimood.exceptions import SkmimoodWarning
from skmimood.nifti import write_image

playwright = pytest.importorskip("playwright.sync_api")

HOSTILE = "a'b\"<script>alert(1)<script><img src=x onerror=alert(1)>é"
_CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
_SOFTWARE_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")

pytestmark = pytest.mark.skipif(_CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Return the folder of the results of a scan with a lesion and a name to beware of, and of a healthy one."""
    folder = tmp_path_factory.mktemp("job")
    model = save_model_of_toys(folder)
    (folder / "scans").mkdir()
    write_image(image(20), folder / "scans" / "healthy.nii.gz")
    write_image(image(21, lesion=True), folder / "scans" / "plain.nii.gz")
    os.replace(folder / "scans" / "plain.nii.gz", folder / "scans" / f"{HOSTILE}.nii.gz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkmimoodWarning)
        assert run("score", folder / "scans", "-m", model, "-o", folder / "out", "--quiet") == 0
    return folder / "out"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=_CHROMIUM, args=_SOFTWARE_WEBGL)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """Return a page that keeps what it asks for and complains of."""
    page = browser.new_page(viewport={"width": 700, "height": 420})
    page.set_default_timeout(120_000)
    page.requests, page.complaints = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("dialog", lambda dialog: page.complaints.append(f"dialog {dialog.message}"))
    yield page
    page.close()


@pytest.fixture
def viewer(page, out):
    """Return the page of the scan with a lesion, ready."""
    page.goto((out / f"{HOSTILE}.html").as_uri())
    page.wait_for_selector("body[data-ready]")
    return page


def picture(page):
    """Return what the three planes look like, after the next frame."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.locator("#slices").screenshot()


def slide(page, name, value):
    page.eval_on_selector(
        f"#{name}", "(slider, to) => { slider.value = to; slider.dispatchEvent(new Event('input')); }", value
    )


def test_the_viewer_asks_for_nothing_and_complains_of_nothing(viewer, out):
    for key in "ahm":
        viewer.keyboard.press(key)
    slide(viewer, "threshold", 200)
    viewer.locator("#slices").click(position={"x": 60, "y": 80})
    picture(viewer)
    assert viewer.requests == [(out / f"{HOSTILE}.html").as_uri()]
    assert viewer.complaints == []


def test_names_are_text_in_the_viewer(viewer):
    assert viewer.text_content("h1") == HOSTILE
    assert viewer.title() == f"{HOSTILE} in skmimood"
    assert viewer.locator("img").count() == 0


def test_sliders_and_keys_change_what_is_seen_and_back(viewer):
    before = picture(viewer)
    for change, back in (
        (lambda: slide(viewer, "threshold", 10), lambda: viewer.click("#reset")),
        (lambda: slide(viewer, "opacity", 10), lambda: slide(viewer, "opacity", 70)),
        *((lambda key=key: viewer.keyboard.press(key),) * 2 for key in "ahm"),
    ):
        change()
        assert picture(viewer) != before
        back()
        assert picture(viewer) == before


def test_the_false_positive_rate_stands_beside_the_threshold(viewer):
    assert viewer.text_content("#rate").endswith("at most 1.0 % of healthy voxels exceed it")
    slide(viewer, "threshold", 10)
    loose = viewer.text_content("#rate")
    slide(viewer, "threshold", 240)
    strict = viewer.text_content("#rate")
    shares = [float(text.split("at most ")[1].split(" %")[0]) for text in (loose, strict)]
    assert shares[0] > 10
    assert shares[1] < 0.1


def test_the_report_links_to_the_viewer_and_back(page, out):
    page.goto((out / "report.html").as_uri())
    page.click("text=Open in the viewer")
    assert page.text_content("h1") == HOSTILE
    page.click("text=Report")
    assert page.url == (out / "report.html").as_uri()
    assert page.complaints == []
