"""Trees of pictures as arrays: kinds, splits and masks by their folders."""

import numpy as np
import pytest
from PIL import Image

from skmimood.datasets import load_picture_folder
from skmimood.exceptions import InputError

GREY = np.random.default_rng(0).integers(0, 256, (12, 16), dtype=np.uint8)
MASK = np.where(GREY > 200, 255, 0).astype(np.uint8)


def write(root, **pictures):
    for name, pixels in pictures.items():
        path = root / f"{name.replace('__', '/')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


MVTEC = {
    "train__good__000": GREY,
    "test__good__000": GREY,
    "test__crack__000": GREY,
    "ground_truth__crack__000_mask": MASK,
}
BMAD = {
    "train__good__000": GREY, "test__good__img__000": GREY, "test__Ungood__img__000": GREY,
    "test__good__label__000": MASK * 0, "test__Ungood__label__000": MASK,
}  # fmt: skip
FLAT = {"good__000": GREY, "healthy__000": GREY, "bad__007": GREY, "masks__007": MASK}


@pytest.mark.parametrize("layout", [MVTEC, BMAD, FLAT], ids=["MVTec", "BMAD", "flat"])
def test_pictures_get_their_kinds_splits_and_masks(tmp_path, layout):
    found = load_picture_folder(write(tmp_path, **layout))
    assert found.is_healthy.sum() == 2
    assert len(found) == 3
    np.testing.assert_allclose(found.images, np.stack([GREY / 255] * 3), rtol=1e-6)
    assert found.images.dtype == np.float32
    np.testing.assert_array_equal(found.masks[~found.is_healthy], MASK[np.newaxis] > 0)
    assert not found.masks[found.is_healthy].any()
    assert sorted(found.splits) == (["", "", ""] if layout is FLAT else ["test", "test", "train"])
    assert {"good"} <= set(found.kinds) <= {"good", "healthy", "crack", "ungood", "bad"}


def test_without_masks_there_are_none(tmp_path):
    found = load_picture_folder(write(tmp_path, good__a=GREY, bad__b=GREY))
    assert found.masks is None
    assert found.kinds == ("bad", "good")


def test_sizes_are_brought_to_one_or_refused(tmp_path):
    write(tmp_path, good__a=GREY, bad__b=np.tile(GREY, (2, 2)), masks__b=np.tile(MASK, (2, 2)))
    with pytest.raises(InputError, match=r"differ in size \(.*1 of 12 x 16.*\)\. Pass size="):
        load_picture_folder(tmp_path)
    found = load_picture_folder(tmp_path, size=(6, 8))
    assert found.images.shape == found.masks.shape == (2, 6, 8)
    assert found.images.min() >= 0
    assert found.images.max() <= 1


def test_more_bits_are_scaled_by_the_highest_value_of_the_set(tmp_path):
    deep = GREY.astype(np.uint16) * 16
    found = load_picture_folder(write(tmp_path, good__a=deep, good__b=deep // 2))
    assert found.images.max() == 1
    np.testing.assert_allclose(found.images[0], deep / deep.max(), rtol=1e-6)


def test_masks_that_are_missing_or_not_clear_are_refused(tmp_path):
    write(tmp_path, bad__a=GREY, bad__b=GREY, masks__a=MASK)
    with pytest.raises(InputError, match=r"No mask is named like bad/b\.png"):
        load_picture_folder(tmp_path)
    write(tmp_path, masks__b=MASK, masks__b_mask=MASK)
    with pytest.raises(InputError, match=r"could each be the mask of b\.png"):
        load_picture_folder(tmp_path)
    with pytest.raises(InputError, match="holds masks only"):
        load_picture_folder(write(tmp_path / "only", masks__a=MASK))
    with pytest.raises(InputError, match="is no folder of pictures alone"):
        load_picture_folder(tmp_path / "bad" / "a.png")
