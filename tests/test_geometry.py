"""Which affine of a header is believed, and what maps carry of it."""

import io

import nibabel as nib
import numpy as np
import pytest
from toy_scans import head, image, make

from skmimood.exceptions import ScanReadError, SkmimoodWarning
from skmimood.nifti import make_image, read_grid, read_scan, write_image

TURN = nib.eulerangles.euler2mat(x=0.1) @ np.diag([-2.0, 2, 2])
AFFINE = nib.affines.from_matvec(TURN, [30, -20, 10])
BROKEN_SFORMS = {
    "zeros": 0.0,
    "nan": np.nan,
    "infinite": np.inf,
    "singular": [*TURN[1], 0],
    "tiny": [1e-6, 0, 0, 0],
    "huge": [1e5, 0, 0, 0],
}
BROKEN_QFORMS = {
    "quaternion of nan": {"quatern_b": np.nan},
    "quaternion too long": {"quatern_b": 0.9, "quatern_c": 0.9},
    "offset of infinity": {"qoffset_x": np.inf},
}
BROKEN_ZOOMS = {"zero": 0.0, "negative": -2.0, "nan": np.nan, "infinite": np.inf}


def save(path, sform=1, qform=1, zooms=(), **fields):
    """Write a scan whose header fields were changed after writing."""
    made = nib.Nifti1Image(head()[0], AFFINE)
    made.set_sform(AFFINE, sform)
    made.set_qform(AFFINE, qform)
    stream = io.BytesIO()
    made.to_file_map({"image": nib.FileHolder(fileobj=stream)})
    content = bytearray(stream.getvalue())
    header = np.frombuffer(content[:348], dtype=nib.Nifti1Header.template_dtype).copy()
    for name, value in fields.items():
        header[name] = value
    for axis, size in zooms:
        header["pixdim"][..., axis] = size
    path.write_bytes(header.tobytes() + bytes(content[348:]))
    return path


def rows(value):
    return {"srow_x": value} if isinstance(value, list) else {f"srow_{axis}": value for axis in "xyz"}


def check_map(path, remark):
    scan = read_scan(path)
    assert scan.warnings == (remark,)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-5)
    np.testing.assert_array_equal(read_grid(path).affine_mm, scan.affine_mm)
    result = make_image(scan.data, scan)
    np.testing.assert_array_equal(result.affine, scan.affine)
    write_image(result, path.with_name("map.nii.gz"), overwrite=True)
    back = nib.load(path.with_name("map.nii.gz"))
    np.testing.assert_allclose(back.affine, AFFINE, atol=1e-5)
    for code, form in (back.get_sform(coded=True)[::-1], back.get_qform(coded=True)[::-1]):
        assert code == 0 or np.allclose(form, AFFINE, atol=1e-4)
    np.testing.assert_allclose(back.header.get_zooms(), 2, rtol=1e-3)
    assert read_scan(back).warnings == ()


@pytest.mark.parametrize("kind", BROKEN_SFORMS)
def test_a_sound_qform_stands_in_for_a_broken_sform(tmp_path, kind):
    path = save(tmp_path / "s.nii", **rows(BROKEN_SFORMS[kind]))
    check_map(path, "the sform is broken; the qform is used")
    np.testing.assert_array_equal(read_scan(nib.load(path)).affine, read_scan(path).affine)


@pytest.mark.parametrize("kind", BROKEN_QFORMS)
def test_a_broken_qform_beside_a_sound_sform_is_left_out(tmp_path, kind):
    path = save(tmp_path / "s.nii", **BROKEN_QFORMS[kind])
    check_map(path, "the qform is broken; the sform is used")


@pytest.mark.parametrize("kind", BROKEN_ZOOMS)
@pytest.mark.parametrize("qform", [0, 1])
@pytest.mark.parametrize("axes", [(1,), (3,), (1, 2, 3)])
def test_broken_voxel_sizes_beside_a_sound_sform_are_those_of_the_sform(tmp_path, kind, qform, axes):
    path = save(tmp_path / "s.nii", qform=qform, zooms=[(axis, BROKEN_ZOOMS[kind]) for axis in axes])
    sizes = " x ".join(f"{BROKEN_ZOOMS[kind] if axis in axes else 2:g}" for axis in (1, 2, 3))
    check_map(path, f"voxel sizes {sizes} in the header are impossible; those of the sform are used")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({**rows(0.0), "quatern_b": np.nan}, "singular affine"),
        ({**rows(np.nan), "qform": 0}, "no finite affine"),
        ({**rows(0.0), "zooms": [(1, 0.0)]}, "impossible voxel sizes 0 x 2 x 2"),
        ({"sform": 0, "zooms": [(2, np.nan)]}, "impossible voxel sizes 2 x nan x 2"),
        ({"sform": 0, "quatern_b": np.nan}, "no finite affine"),
        ({"sform": 0, "qform": 0, "zooms": [(2, -1.0)]}, "impossible voxel sizes"),
    ],
)
def test_bad_input_23_without_a_sound_affine_a_scan_is_refused_in_one_line(tmp_path, fields, reason):
    with pytest.raises(ScanReadError, match=reason) as caught:
        read_scan(save(tmp_path / "s.nii", **fields))
    assert "\n" not in str(caught.value)


def test_an_affine_whose_voxels_have_no_finite_size_is_refused_without_a_warning(tmp_path):
    with np.errstate(over="ignore"):
        nib.Nifti2Image(head()[0], np.diag([1e300, 2, 2, 1])).to_filename(tmp_path / "s.nii")
    for refused in (read_scan, read_grid):
        with pytest.raises(ScanReadError, match="impossible voxel sizes inf"):
            refused(tmp_path / "s.nii")


def test_the_map_of_a_scan_with_a_broken_sform_is_that_of_the_sound_one(tmp_path):
    detector = make().fit([image(seed) for seed in range(4)])
    sound = detector.detect_scan(save(tmp_path / "sound.nii"))
    odd = detector.detect_scan(save(tmp_path / "odd.nii", srow_x=0.0))
    assert odd.flags == ("the sform is broken; the qform is used", *sound.flags)
    np.testing.assert_allclose(odd.anomaly.get_fdata(), sound.anomaly.get_fdata(), atol=1e-5)


@pytest.mark.parametrize(
    ("plane", "affine", "better"),
    [
        ("axial", np.diag([2.0, 2, 12, 1]), None),
        ("coronal", np.diag([2.0, 2, 12, 1]), "axial"),
        ("sagittal", np.diag([2.0, 2, 12, 1]), "axial"),
        ("axial", np.diag([12.0, 2, 2, 1]), "sagittal"),
        ("coronal", np.diag([2.0, 2, 4, 1]), None),
        ("axial", np.array([[0, 0, 12.0, 0], [2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]]), "sagittal"),
    ],
)
def test_a_thick_axis_within_the_slices_is_remarked_on_with_the_better_plane(plane, affine, better):
    scans = [image(seed, affine, shape=(24, 24, 24)) for seed in range(4)]
    if np.diag(affine).max() == 4:
        detector = make(plane=plane).fit(scans)
    else:
        with pytest.warns(SkmimoodWarning, match="anisotropic"):
            detector = make(plane=plane).fit(scans)
    remarks = [flag for flag in detector.detect_scan(scans[0]).flags if "thick axis" in flag]
    wanted = f"the thick axis lies in the {plane} slices, which are coarse along it; the {better} are not"
    assert remarks == ([] if better is None else [wanted])
