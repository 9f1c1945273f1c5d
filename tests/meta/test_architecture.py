"""Imports only go down: the floors of the library, held against the text of every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import PACKAGE

# The floor of every module or package directly under vsssnap.  An import points to a lower
# floor or stays inside its own package.
FLOORS = {
    "errors": 0,
    **dict.fromkeys(("metadata", "consistency", "_arguments", "_placed", "_version"), 1),
    **dict.fromkeys(("_units", "_record", "_crc32c", "_deadline", "_registry", "_uses", "_retries"), 1),
    **dict.fromkeys(("_win32", "_posix", "_process", "_files", "_behind", "_claims"), 2),
    "blocks": 3,
    **dict.fromkeys(("volumes", "providers", "formats"), 4),
    **dict.fromkeys(("snapshot", "_event", "_held", "_inventory", "_quieted", "_volume"), 5),
    **dict.fromkeys(("quiesce", "increments", "vss"), 5),
    **dict.fromkeys(("imaging", "disk"), 6),
    "__init__": 6.5,  # gathers the public names of all below it
    **dict.fromkeys(("serve", "testing"), 7),
    "cli": 8,
    "__main__": 9,
}

# Modules of one floor that may see each other, importer first; no circle among them.
SIDEWAYS = {
    ("metadata", "consistency"),
    ("_uses", "_deadline"),
    ("_files", "_win32"),
    ("_posix", "_files"),
    ("_behind", "_files"),
    ("_retries", "_deadline"),
    ("snapshot", "_held"),
    ("snapshot", "_inventory"),
    ("snapshot", "_event"),
    ("snapshot", "_quieted"),
    ("snapshot", "_volume"),
    ("snapshot", "quiesce"),
    ("_quieted", "quiesce"),
}

KNOWS_CFFI = "_win32"

# Longer than this is several subjects in one file.
LONGEST = 400  # lines
GENERATED = frozenset({"_win32/_ffi.py"})

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def first_part(path: Path) -> str:
    """The name in FLOORS that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def target(dotted: str) -> str:
    """The name in FLOORS that ``vsssnap.x.y`` belongs to; the package itself is ``__init__``."""
    parts = dotted.split(".")
    if len(parts) == 1:
        return "__init__"
    inside = (PACKAGE / f"{parts[1]}.py").is_file() or (PACKAGE / parts[1]).is_dir()
    return parts[1] if inside or parts[1] in FLOORS else "__init__"


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, also inside functions and TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            module = node.module or ""
            if module == "vsssnap":
                yield from ((node.lineno, f"vsssnap.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_has_a_floor(path: Path) -> None:
    assert first_part(path) in FLOORS, f"give {name_of(path)} a floor in FLOORS"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_only_go_down(path: Path) -> None:
    here = first_part(path)
    wrong = []
    for line, dotted in imports(parsed(path)):
        if dotted.split(".")[0] != "vsssnap":
            continue
        there = target(dotted)
        if there != here and FLOORS[there] >= FLOORS[here] and (here, there) not in SIDEWAYS:
            wrong.append(f"line {line}: {dotted} (floor {FLOORS[there]}) from {here} (floor {FLOORS[here]})")
    assert not wrong, f"{name_of(path)} imports upwards or sideways: {wrong}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_are_absolute(path: Path) -> None:
    relative = [n.lineno for n in ast.walk(parsed(path)) if isinstance(n, ast.ImportFrom) and n.level]
    assert not relative, f"{name_of(path)} has relative imports in lines {relative}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_windows_package_knows_cffi(path: Path) -> None:
    foreign = {dotted.split(".")[0] for _, dotted in imports(parsed(path))}
    assert first_part(path) == KNOWS_CFFI or not foreign & {"cffi", "_cffi_backend"}


def test_volumes_providers_and_formats_share_a_floor() -> None:
    # With the rule above this means that none of them imports another.
    assert FLOORS["volumes"] == FLOORS["providers"] == FLOORS["formats"]
    assert not {name for pair in SIDEWAYS for name in pair} & {"volumes", "providers", "formats"}


def test_sideways_imports_form_no_circle() -> None:
    assert all(FLOORS[one] == FLOORS[other] for one, other in SIDEWAYS)
    left = set(SIDEWAYS)
    while left:
        importers = {one for one, _ in left}
        leaves = {pair for pair in left if pair[1] not in importers}
        assert leaves, f"these import each other in a circle: {sorted(left)}"
        left -= leaves


def test_sideways_imports_are_all_needed() -> None:
    found = {
        (first_part(path), target(dotted))
        for path in MODULES
        for _, dotted in imports(parsed(path))
        if dotted.startswith("vsssnap")
    }
    assert found >= SIDEWAYS, f"take out of SIDEWAYS: {sorted(SIDEWAYS - found)}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_is_short_enough_to_read(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST or name_of(path) in GENERATED, f"{name_of(path)} has {lines} lines: split it"
