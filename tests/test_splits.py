from dataclasses import replace
from pathlib import Path

import pytest

from skmimood.datasets import ScanSet, read_splits, split_scan_set
from skmimood.exceptions import InputError, SkmimoodWarning
from skmimood.jobs.splits import select_split

SUBJECTS = ("a", "b", "c", "d")
SCANS = ScanSet(
    name="Toy",
    modality="t2",
    subjects=SUBJECTS,
    scans=tuple(Path(f"{subject}_t2.nii.gz") for subject in SUBJECTS),
    masks=(None, None, Path("c_seg.nii.gz"), None),
    brain_masks=(None,) * 4,
    licence="none",
)


@pytest.fixture
def table(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "splits.csv"
        path.write_text(text, encoding=encoding)
        return path

    return write


def test_splits_keep_the_order_of_the_table_and_other_columns_are_ignored(table):
    path = table("age,split,subject\n30,train,c\n40,test,b\n50,train,a\n")
    assert list(read_splits(path).items()) == [("train", ("c", "a")), ("test", ("b",))]


def test_spaces_a_byte_order_mark_and_repeated_rows_do_no_harm(table):
    path = table("subject, split\na , train\na,train\nb, test\n", encoding="utf-8-sig")
    assert read_splits(str(path)) == {"train": ("a",), "test": ("b",)}


def test_a_split_may_be_spelled_in_any_case(table, tmp_path):
    assert read_splits(table("subject,split\na,Train\nb,train\nc,TEST\n")) == {
        "Train": ("a", "b"),
        "TEST": ("c",),
    }
    scans = [tmp_path / f"{subject}_T1.nii.gz" for subject in "abc"]
    for scan in scans:
        scan.touch()
    assert select_split([tmp_path], "train", suffix=None, exclude=()) == scans[:2]
    assert select_split([tmp_path], "Test", suffix=None, exclude=()) == scans[2:]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("subject/split\na/train\n", "splits.csv of .* has no column 'subject'. It needs subject and split"),
        ("subject,group\na,train\n", "has no column 'split'"),
        ("subject,split\na,train\nb,train\na,test\n", "two splits for 'a', train and test"),
        ("subject,split\n", "has no rows"),
        ("", "has no rows"),
        ("subject,split\na\n", "no split for 'a'"),
        ("subject,split\n,train\n", "a row without a subject"),
    ],
)
def test_a_faulty_table_is_a_clear_error(text, fault, table):
    with pytest.raises(InputError, match=fault):
        read_splits(table(text))


@pytest.mark.parametrize("separator", [",", ";", "\t", " ; ", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_of_any_spreadsheet_is_read(tmp_path, separator, encoding, end):
    rows = [("age", " Subject", "SPLIT "), ("30", "José", "train"), ("40", '"b"', " test"), ("", "", "")]
    text = "".join(separator.join(row) + end for row in rows)
    (tmp_path / "splits.csv").write_bytes(text.encode(encoding))
    assert read_splits(tmp_path / "splits.csv") == {"train": ("José",), "test": ("b",)}
    (tmp_path / "splits.csv").write_bytes(f"sep={separator.strip() or separator}{end}{text}".encode(encoding))
    assert read_splits(tmp_path / "splits.csv") == {"train": ("José",), "test": ("b",)}


def test_a_table_that_is_not_text_is_a_clear_error(tmp_path):
    (tmp_path / "splits.csv").write_bytes(b"subject,split\n\xff\xfe,train\n")
    with pytest.raises(InputError, match="cannot be read"):
        read_splits(tmp_path / "splits.csv")


def test_a_missing_table_names_the_columns_that_it_should_have(tmp_path):
    with pytest.raises(InputError, match=r"no splits.csv in .*columns subject and split"):
        read_splits(tmp_path / "splits.csv")


def test_a_set_is_cut_by_subject_and_keeps_its_masks():
    parts = split_scan_set(SCANS, {"train": ("d", "a"), "test": ["c"]})
    assert list(parts) == ["train", "test"]
    assert parts["train"].subjects == ("a", "d")
    assert parts["train"].scans == (SCANS.scans[0], SCANS.scans[3])
    assert parts["test"] == SCANS.select(["c"])
    assert parts["test"].masks == (Path("c_seg.nii.gz"),)
    assert parts["test"].name == "Toy"


def test_subjects_without_scans_are_named_up_to_five():
    missing = [f"x{i}" for i in range(7)]
    with pytest.raises(InputError, match=r"no scan of 'x0', 'x1', 'x2', 'x3', 'x4' and 2 more among its 4"):
        split_scan_set(SCANS, {"train": ["a"], "val": missing[:3], "test": missing[3:]})


def test_a_subject_in_two_hand_made_splits_is_refused():
    with pytest.raises(InputError, match="two splits for 'b', train and test"):
        split_scan_set(SCANS, {"train": ["a", "b"], "test": ["b"]})


def test_one_subject_may_be_selected_by_its_name():
    assert SCANS.select("b").subjects == ("b",)
    assert len(SCANS.select([])) == 0
    assert replace(SCANS, labels=(1, 4)).select(["b", "b"]).labels == (1, 4)


def test_subjects_of_a_split_of_which_no_scan_was_found_are_named(table, tmp_path):
    table("subject,split\nsub-1,train\nSUB-2,train\nsub-3,test\n")
    scans = [tmp_path / f"sub-{number}_T1w.nii.gz" for number in (1, 2)]
    for scan in scans:
        scan.touch()
    with pytest.warns(SkmimoodWarning, match="No scan was found for subjects of split 'train': SUB-2"):
        assert select_split([tmp_path], "train", suffix=None, exclude=()) == scans[:1]
