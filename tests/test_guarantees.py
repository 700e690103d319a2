"""docs/guarantees.md: every promise names a test, every test named there exists, and slow ones are called slow."""

import ast
import re
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
ROWS = [
    row
    for table in re.findall(r"\| promise \| kept by \|\n\|---\|---\|\n((?:\|.*\n?)+)", TEXT)
    for row in table.splitlines()
]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`(?: \*\((\w+)\)\*)?", TEXT)))


@pytest.mark.parametrize("row", ROWS)
def test_every_promise_names_a_test(row):
    assert re.search(r"`(tests/[\w/]+\.py::\w+|make test-\w+)`", row.split("|")[2])


@pytest.mark.parametrize(("test", "mark"), NAMED)
def test_every_test_that_is_named_exists(test, mark):
    path, name = test.split("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    [function] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    marks = set(re.findall(r"pytest\.mark\.(slow|gpu)\b", " ".join(map(ast.unparse, function.decorator_list))))
    assert marks == ({mark.lower()} if mark else set())
