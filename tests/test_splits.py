from dataclasses import replace
from pathlib import Path

import pytest
from command_line import assert_mistake, rows, run
from toy_scans import image

from skmimood.datasets import ScanSet, read_splits, split_scan_set
from skmimood.exceptions import InputError, SkmimoodWarning
from skmimood.jobs.splits import select_split
from skmimood.nifti import write_image

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


def test_only_the_scans_of_a_split_are_scored(model, scans, tmp_path, capsys):
    (scans / "splits.csv").write_text("subject,split\nhealthy,train\npatient-1,test\npatient-2,val\n")
    out = tmp_path / "out"
    assert run("score", scans, "-m", model, "-o", out, "--split", "test", "--quiet") == 0
    assert set(rows(out)) == {"patient-1_T1"}
    command = ("score", scans, "-m", model, "-o", tmp_path / "none", "--split", "dev")
    assert_mistake(capsys, *command, says="no split 'dev'; it has test, train, val")


def test_a_subject_is_found_by_its_folder_and_never_by_half_its_name(model, tmp_path):
    for name in ("sub-1/flair", "sub-1_b/t1", "sub-12_t2", "sub-1_t2w"):
        path = tmp_path / "scans" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(image(len(name)), path)
    (tmp_path / "scans" / "splits.csv").write_text(
        "split,subject,age\ntest,sub-1,3\ntrain,sub-1_b,4\ntrain,sub-12,5\n"
    )
    run("score", tmp_path / "scans", "-m", model, "-o", tmp_path / "out", "--split", "test", "--quiet")
    assert set(rows(tmp_path / "out")) == {"flair", "sub-1_t2w"}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (None, "no splits.csv"),
        ("subject;group\na;train\n", "no column"),
        ("subject,split\na\n", "no split for 'a'"),
        ("subject,split\na,train\na,test\n", "two splits for 'a'"),
        ("subject,split\nother,test\n", "No scan belongs"),
    ],
)
def test_a_faulty_split_table_is_a_clear_error(table, says, model, scans, tmp_path, capsys):
    if table is not None:
        (scans / "splits.csv").write_text(table)
    command = ("score", scans, "-m", model, "-o", tmp_path / "out", "--split", "test")
    assert_mistake(capsys, *command, says=says)
