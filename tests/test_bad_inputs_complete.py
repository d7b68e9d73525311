"""Each bad input and each class of vulnerability that is known has a test that is named for it."""

import ast
import re
from pathlib import Path

N_BAD_INPUTS = 48
VULNERABILITIES = {
    "pickle", "safe_loader", "path_traversal", "decompression_bomb", "injection", "identity_leak", "network",
}  # fmt: skip


def names_of_tests():
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node.name


def test_each_bad_input_has_a_test_of_its_number():
    numbers = {
        int(found[1]) for name in names_of_tests() if (found := re.match(r"test_bad_input_(\d\d)_", name))
    }
    assert numbers == {*range(1, N_BAD_INPUTS + 1)}


def test_each_class_of_vulnerability_has_a_test_of_its_name():
    named = [name for name in names_of_tests() if name.startswith("test_vulnerability_")]
    kinds = "|".join(sorted(VULNERABILITIES))
    found = [re.match(rf"test_vulnerability_({kinds})_", name) for name in named]
    assert {match and match[1] for match in found} == VULNERABILITIES
