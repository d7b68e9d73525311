import numpy as np
import pytest

from skmimood.datasets import load_luna16, nodule_mask, read_nodules
from skmimood.exceptions import InputError
from skmimood.nifti import read_scan

itk = pytest.importorskip("SimpleITK")
WITH, WITHOUT = "1.3.6.1.4.1.14519.5.2.1.6279.6001.1057", "1.3.6.1.4.1.14519.5.2.1.6279.6001.2058"
CENTRE, DIAMETER = (-20.0, 31.0, -98.0), 12.0  # as the table has it: left and back are positive
TABLE = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


@pytest.fixture
def root(tmp_path):
    """Write two scans as LUNA16 lies on disk; one has a bright ball, which the table knows."""
    for subset, series in enumerate((WITH, WITHOUT)):
        spacing, origin = np.array([0.8, 0.9, 2.5]), np.array([-60.0, -10.0, -150.0])
        places = np.indices((80, 90, 40)).transpose(1, 2, 3, 0) * spacing + origin
        hu = np.full(places.shape[:3], -850, np.int16)
        if series == WITH:
            hu[np.linalg.norm(places - CENTRE, axis=-1) <= DIAMETER / 2] = 50
        picture = itk.GetImageFromArray(hu.transpose(2, 1, 0))
        picture.SetSpacing(spacing.tolist())
        picture.SetOrigin(origin.tolist())
        folder = tmp_path / f"subset{subset}"
        folder.mkdir()
        itk.WriteImage(picture, str(folder / f"{series}.mhd"))
    x, y, z = CENTRE
    (tmp_path / "annotations.csv").write_text(f"{TABLE}{WITH},{x},{y},{z},{DIAMETER}\n")
    return tmp_path


def test_scans_are_found_in_all_subsets_and_have_no_masks(root):
    found = load_luna16(root)
    assert found.subjects == (WITH, WITHOUT)
    assert found.masks == (None, None)
    assert found.modality == "ct"
    assert [path.parent.name for path in found.scans] == ["subset0", "subset1"]


def test_a_nodule_lies_where_it_is_seen_in_the_scan(root):
    nodules = read_nodules(root / "annotations.csv")
    assert [*nodules] == [WITH]
    assert nodules[WITH].tolist() == [[20.0, -31.0, -98.0, DIAMETER]]
    scan = read_scan(load_luna16(root).scans[0])
    mask = nodule_mask(nodules[WITH], scan.data.shape, scan.affine)
    assert np.array_equal(mask, scan.data > 0)
    has_nodule = mask.any((0, 1))
    assert 0 < has_nodule.sum() < 8  # slices, by which a benchmark can go


def test_a_scan_without_nodules_has_an_empty_mask():
    assert not nodule_mask(np.empty((0, 4)), (5, 6, 7), np.eye(4)).any()


def test_spheres_keep_their_volume_on_a_turned_grid():
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.5, 0.7, 1.1]
    affine[:3, 3] = 3.0
    middle = affine[:3, :3] @ [30, 25, 15] + affine[:3, 3]
    mask = nodule_mask(np.array([[*middle, 12.0]]), (60, 50, 30), affine)
    assert mask.sum() * 0.5 * 0.7 * 1.1 == pytest.approx(np.pi / 6 * 12**3, rel=0.02)
    assert np.argwhere(mask).mean(0) == pytest.approx([30, 25, 15], abs=0.1)


def test_a_nodule_between_the_voxels_marks_the_nearest():
    mask = nodule_mask(np.array([[2.4, 3.4, 1.4, 0.1]]), (5, 6, 4), np.eye(4))
    assert np.argwhere(mask).tolist() == [[2, 3, 1]]


def test_a_nodule_outside_of_the_scan_is_refused():
    with pytest.raises(InputError, match="outside of the scan"):
        nodule_mask(np.array([[9.0, 0.0, 0.0, 3.0]]), (5, 6, 4), np.eye(4))


@pytest.mark.parametrize("row", ["a,1,2,x,3", "a,1,2,3,0", "a,1,2,nan,3"])
def test_a_row_that_is_no_nodule_is_named(tmp_path, row):
    (tmp_path / "annotations.csv").write_text(f"{TABLE}b,1,2,3,4\n{row}\n")
    with pytest.raises(InputError, match="nodule 2 should have three coordinates"):
        read_nodules(tmp_path / "annotations.csv")


def test_a_table_without_nodules_is_refused(tmp_path):
    (tmp_path / "annotations.csv").write_text(TABLE)
    with pytest.raises(InputError, match="no rows"):
        read_nodules(tmp_path / "annotations.csv")


def test_a_folder_without_its_scans_says_what_they_look_like(tmp_path):
    with pytest.raises(InputError, match=r"subset0/1\.3\.6"):
        load_luna16(tmp_path)
