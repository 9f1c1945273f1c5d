"""What the program advises can be typed into a shell."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from checkout import PACKAGE
from vsssnap.cli.wording import WORDS, for_people, speaks_python, translated
from vsssnap.errors import ConsistencyError, TargetRefusedError

# Remedies that no command can lead to: of calls that the program does not make.
UNREACHABLE = frozenset(
    {
        "blocks/cow/store.py",  # a CowVolume of one's own
        "formats/sidecar/states.py",
        "imaging/copying.py",  # copy_blocks
        "snapshot.py",  # the life of an object
        "testing/_provider_case.py",
        "testing/seeded.py",
        "testing/memory.py",
        "testing/faults.py",
        "testing/live.py",
        "quiesce.py",
    }
)


def hints(path: Path) -> list[str]:
    """The remedies in a module, as far as they are literal."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "hint":
            found += [
                part.value
                for part in ast.walk(node.value)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
    return found


ALL = [
    (path.relative_to(PACKAGE).as_posix(), hint)
    for path in sorted(PACKAGE.rglob("*.py"))
    for hint in hints(path)
]


def test_there_are_remedies() -> None:
    assert len(ALL) > 100


@pytest.mark.parametrize("library", [library for library, _ in WORDS])
def test_word_is_one_that_the_library_uses(library: str) -> None:
    assert any(library in hint for _, hint in ALL), f"nothing says {library!r} any more"


@pytest.mark.parametrize(
    ("place", "hint"), sorted({(place, hint) for place, hint in ALL if speaks_python(hint)}), ids=str
)
def test_remedy_speaks_no_python(place: str, hint: str) -> None:
    if place not in UNREACHABLE:
        assert not speaks_python(translated(hint)), f"{place}: put it into WORDS"


def test_limits_that_no_command_can_set_are_not_spoken_of() -> None:
    hint = "raise timeouts=StepTimeouts(do_snapshot_set=) or find what blocks it"
    assert translated(hint, "save") == "find what blocks it"


def test_error_keeps_everything_but_its_remedy() -> None:
    error = TargetRefusedError("a exists", path="a", hint="choose another name, or pass replace=True")
    error.add_note("a note")
    shown = for_people(error)
    assert str(shown) == "a exists: choose another name, or pass --replace"
    assert (shown.path, shown.__notes__, type(shown)) == ("a", ["a note"], TargetRefusedError)
    assert "replace=True" in str(error), "the error itself is left alone"


def test_other_errors_are_left_alone() -> None:
    for error in (KeyError("x"), ConsistencyError("no hint")):
        assert for_people(error) is error
