"""PNG, JPEG and TIFF pictures as scans of one slice."""

import importlib

import numpy as np
import pytest
from PIL import Image

from skmimood.exceptions import ScanReadError
from skmimood.nifti import (
    find_companion,
    find_scans,
    make_image,
    read_grid,
    read_labels,
    read_scan,
    write_image,
)
from skmimood.preprocessing import GridPlan

GREY = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)  # rows, columns


def write(path, pixels=GREY, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize(
    "pixels", [GREY, GREY.astype(np.uint16) * 200, GREY > 128], ids=["8 bits", "16 bits", "1 bit"]
)
@pytest.mark.parametrize("extension", [".png", ".PNG", ".tif", ".tiff"])
def test_a_picture_is_a_scan_of_one_slice_that_is_seen_as_it_is_shown(tmp_path, pixels, extension):
    path = write(tmp_path / f"scan{extension}", pixels)
    scan = read_scan(path)
    assert (scan.id, scan.shape, scan.extension, scan.warnings) == ("scan", (30, 20), ".tif", ())
    assert read_grid(path).matches(scan.grid)
    plan = GridPlan.for_scan(scan, None, spacing=1.0, size=(20, 30))
    np.testing.assert_array_equal(plan.forward(scan.data), pixels[np.newaxis])


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint16, np.uint32])
def test_maps_go_back_onto_the_pixels_as_tiff(tmp_path, dtype):
    scan = read_scan(write(tmp_path / "scan.png"))
    values = (np.arange(600).reshape(30, 20, 1) % 250).astype(dtype)
    write_image(make_image(values, scan, dtype=dtype), tmp_path / "map.tif")
    with Image.open(tmp_path / "map.tif") as picture:
        np.testing.assert_array_equal(np.asarray(picture), values[:, :, 0].T)


def test_colours_become_their_luminance_with_a_remark(tmp_path):
    grey = read_scan(write(tmp_path / "grey.png", np.stack([GREY] * 3, axis=-1)))
    np.testing.assert_array_equal(grey.data[:, :, 0].T, GREY)
    assert grey.warnings == ("its colours were taken as their luminance",)
    red = read_scan(write(tmp_path / "red.png", np.stack([GREY, 0 * GREY, 0 * GREY], axis=-1)))
    np.testing.assert_allclose(red.data[:, :, 0].T, 0.299 * GREY, atol=1)


def test_jpeg_is_read_as_nearly_what_it_was(tmp_path):
    smooth = np.add.outer(np.arange(20), np.arange(30)).astype(np.uint8) * 4
    scan = read_scan(write(tmp_path / "scan.jpg", smooth, quality=95))
    assert np.abs(scan.data[:, :, 0].T - smooth).max() < 6


def test_masks_of_pictures_are_pictures(tmp_path):
    path = write(tmp_path / "000.png")
    mask = write(tmp_path / "000_mask.png", np.where(GREY > 128, 255, 0).astype(np.uint8))
    assert find_companion(path, "mask") == mask
    np.testing.assert_array_equal(read_labels(mask, read_scan(path))[:, :, 0].T, GREY > 128)


def test_pictures_are_scans_only_where_there_are_no_volumes(tmp_path):
    paths = [write(tmp_path / kind / f"{k}.png") for kind in ("bad", "good") for k in range(2)]
    assert find_scans(tmp_path) == paths
    assert find_scans(str(tmp_path / "good" / "*.png")) == paths[2:]
    volume = tmp_path / "scan.nii.gz"
    write_image(make_image(np.zeros((30, 20)), read_scan(paths[0])), volume)
    assert find_scans(tmp_path) == [volume]
    assert find_companion(volume, "mask") is None
    write(tmp_path / "scan_mask.png")  # a picture of a mask
    assert find_companion(volume, "mask") is None


@pytest.mark.parametrize("content", [b"", b"junk" * 50, "half"])
@pytest.mark.parametrize("extension", [".png", ".jpg", ".tif"])
def test_a_damaged_picture_is_refused(tmp_path, content, extension):
    path = write(tmp_path / f"scan{extension}", np.tile(GREY, (5, 5)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    with pytest.raises(ScanReadError) as caught:
        read_scan(path)
    assert caught.value.name == path.name
    assert str(tmp_path) not in str(caught.value)


def test_pictures_of_many_pages_and_too_large_ones_are_refused(tmp_path):
    path = tmp_path / "pages.tif"
    Image.fromarray(GREY).save(path, save_all=True, append_images=[Image.fromarray(GREY)])
    with pytest.raises(ScanReadError, match="holds 2 pictures"):
        read_scan(path)
    with pytest.raises(ScanReadError, match="allowed are 100"):
        read_scan(write(tmp_path / "scan.png"), max_bytes=100)


def test_without_pillow_the_reason_names_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "scan.png")
    monkeypatch.setitem(importlib.sys.modules, "PIL", None)
    with pytest.raises(ScanReadError, match=r'pip install "skmimood\[pictures\]"'):
        read_scan(path)
