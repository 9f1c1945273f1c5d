"""The exit codes that scripts rely on."""

from __future__ import annotations

import re

import pytest

from checkout import TOP
from vsssnap import errors
from vsssnap.cli.exits import BY_CLASS, INTERNAL, code_of


def documented() -> dict[str, int]:
    """Class name to code, from the table in docs/cli.md."""
    text = (TOP / "docs" / "cli.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (?:another )?`(\w+)`", text, re.MULTILINE)
    return {name: int(code) for code, name in rows}


def test_the_table_in_the_documentation_is_the_one_in_force() -> None:
    in_force = {cls.__name__: code for cls, code in BY_CLASS.items() if code != INTERNAL}
    assert documented() == in_force


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_has_a_code(name: str) -> None:
    assert code_of(getattr(errors, name)("x")) > 0


def test_codes_of_reactions_differ() -> None:
    codes = [code for code in BY_CLASS.values() if code != INTERNAL]
    assert len(codes) == len(set(codes))


def test_a_bug_is_told_from_a_refusal() -> None:
    assert code_of(ZeroDivisionError()) == INTERNAL
