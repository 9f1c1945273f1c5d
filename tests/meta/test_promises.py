"""Tables of promises name tests that are there."""

from __future__ import annotations

import ast
import functools
import re

import pytest

from checkout import TOP

PAGE = TOP / "docs" / "providers" / "vss-promises.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
ROWS = [line for line in PAGE.read_text("utf-8").splitlines() if TEST.search(line)]


@functools.cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((TOP / path).read_text("utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:60])
def test_every_test_of_a_promise_is_there(row: str) -> None:
    for path, name in TEST.findall(row):
        assert (TOP / path).is_file(), path
        assert name in functions(path), f"{path} has no {name}"


def test_every_row_has_a_test() -> None:
    lines = PAGE.read_text("utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and line != "| promise | tests |"]
    assert rows == ROWS
    assert len(rows) > 25
