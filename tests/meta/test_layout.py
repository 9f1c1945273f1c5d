"""The checkout holds what it should where it should, and speaks of the project alone."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from checkout import PACKAGE, TOP, public_files

FOLDERS = frozenset({".ci", ".github", "benchmarks", "docs", "src", "tests"})
FILES = frozenset({".gitattributes", ".gitignore", "CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml"})

# Folders of tests about no single package.
TESTS_BESIDE_SRC = frozenset({"contract", "golden", "interop", "labs", "meta", "model", "support"})

TEST_FILES = [path for path in public_files() if path.parts[0] == "tests" and path.name.startswith("test_")]
TEXTS = [path for path in public_files() if b"\0" not in (TOP / path).read_bytes()[:4096]]

# Paths of one machine, and where one machine gets its packages from.  Split, so that this
# file does not match.
ONE_MACHINE = re.compile(
    r"(?<![\w.$}-])/(?:wo" + r"rk|ro" + r"ot)(?![\w-])"
    r"|/opt/(?:py" + r"pi|wheels)"
    r"|py" + r"pi\.org|python" + r"hosted\.org"
    r"|--(?:extra-)?index" + r"-url|--find" + r"-links"
)
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")


def found_in(path: Path, pattern: re.Pattern[str]) -> list[str]:
    lines = (TOP / path).read_text(encoding="utf-8").splitlines()
    return [f"line {number}: {line.strip()}" for number, line in enumerate(lines, 1) if pattern.search(line)]


def test_top_level_holds_nothing_stray() -> None:
    top = {path.parts[0] for path in public_files()}
    assert top <= FOLDERS | FILES, f"stray at the top: {sorted(top - FOLDERS - FILES)}"


def test_project_files_exist() -> None:
    missing = [name for name in sorted(FILES) if not (TOP / name).is_file()]
    assert not missing


def test_source_folder_holds_one_package() -> None:
    assert {path.parts[1] for path in public_files() if path.parts[0] == "src"} == {"vsssnap"}


@pytest.mark.parametrize("path", TEST_FILES, ids=str)
def test_test_file_mirrors_a_module(path: Path) -> None:
    folders, stem = path.parts[1:-1], path.stem.removeprefix("test_")
    if folders and folders[0] in TESTS_BESIDE_SRC:
        return
    package = PACKAGE.joinpath(*folders)
    if folders and not package.is_dir():  # tests/posix is about vsssnap/_posix
        package = PACKAGE.joinpath(f"_{folders[0]}", *folders[1:])
    assert package.is_dir(), f"{path}: there is no package {package.relative_to(TOP)}"
    modules = {p.stem.strip("_") for p in package.iterdir() if p.suffix == ".py" or p.is_dir()}
    if folders:
        modules.add(folders[-1].strip("_"))
    assert any(stem == module or stem.startswith(f"{module}_") for module in modules if module), (
        f"{path}: name it test_MODULE.py or test_MODULE_subject.py, MODULE one of {sorted(modules)}"
    )


@pytest.mark.parametrize("path", TEST_FILES, ids=str)
def test_skip_has_a_reason(path: Path) -> None:
    tree = ast.parse((TOP / path).read_text(encoding="utf-8"))
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or node.attr not in ("skip", "skipif", "xfail"):
            continue
        if not ast.unparse(node).startswith("pytest."):
            continue
        call = called.get(id(node))
        reasons = [] if call is None else [k.value for k in call.keywords if k.arg == "reason"]
        if call is not None and node.attr == "skip":
            reasons += call.args
        assert reasons, f"{path} line {node.lineno}: {ast.unparse(node)} gives no reason"


def test_no_lab_skips_as_a_module() -> None:
    # A skip at import is seen by nobody; `requirements` fails it where labs are required.
    labs = [path for path in TEST_FILES if path.parts[1] == "labs"]
    found = {str(path): found_in(path, re.compile(r"allow_module_level|importorskip")) for path in labs}
    assert not {path: lines for path, lines in found.items() if lines}


def test_files_are_finished() -> None:
    found = {str(path): found_in(path, UNFINISHED) for path in TEXTS}
    assert not {path: lines for path, lines in found.items() if lines}


def test_files_speak_of_no_single_machine() -> None:
    found = {str(path): found_in(path, ONE_MACHINE) for path in TEXTS}
    assert not {path: lines for path, lines in found.items() if lines}
