"""The documentation: its examples run, its links lead somewhere."""

from __future__ import annotations

import gc
import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from checkout import TOP, public_files
from docs_setup import prepare

PAGES = [p for p in public_files() if p.suffix == ".md" and (p.parts[0] == "docs" or len(p.parts) == 1)]

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)")
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>\S.*) -->")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass
class Block:
    line: int  # of the fence, from 1
    code: str
    runs: bool


def unfenced(text: str) -> str:
    """The text with what is inside fences left blank, line for line."""
    inside, lines = False, []
    for line in text.splitlines():
        fence = FENCE.match(line)
        lines.append("" if inside or fence else line)
        inside ^= fence is not None
    return "\n".join(lines)


def python_blocks(text: str) -> list[Block]:
    blocks: list[Block] = []
    lines, before, number = text.splitlines(), "", 0
    while number < len(lines):
        opened = FENCE.match(lines[number])
        if opened is None:
            before = lines[number].strip() or before
            number += 1
            continue
        end = number + 1
        while end < len(lines) and lines[end].strip() != "```":
            end += 1
        if opened["language"] == "python":
            code = textwrap.dedent("\n".join(lines[number + 1 : end]))
            blocks.append(Block(number + 1, code, NOT_RUN.fullmatch(before) is None))
        before, number = "", end + 1
    return blocks


def slug(heading: str) -> str:
    """The anchor of a heading, as the usual renderers make it."""
    words = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return words.strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.*)$", unfenced(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {slug(heading) for heading in headings}


@pytest.mark.wheel
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace = prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    for block in python_blocks((TOP / page).read_text(encoding="utf-8")):
        # Blank lines before it, so that a traceback shows the line in the page.
        program = compile("\n" * block.line + block.code, str(page), "exec", dont_inherit=True)
        if block.runs:
            exec(program, namespace)  # noqa: S102 - running the example is the test
    namespace.clear()
    gc.collect()  # what an example forgot to close warns here, and a warning is an error


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for match in LINK.finditer(unfenced((TOP / page).read_text(encoding="utf-8"))):
        name, _, fragment = match["target"].partition("#")
        if ":" in name:  # a URL
            continue
        aim = (TOP / page).parent / name if name else TOP / page
        if not aim.exists() or (fragment and aim.suffix == ".md" and slug(fragment) not in anchors(aim)):
            broken.append(match["target"])
    assert not broken, f"{page} links to what does not exist: {broken}"


def test_marked_block_is_only_compiled() -> None:
    text = '<!-- not run: needs Windows -->\n\n```python\nSnapshot("C:")\n```\n\n```python\nx = 1\n```\n'
    assert [(block.line, block.runs) for block in python_blocks(text)] == [(3, False), (7, True)]


def test_mark_without_a_reason_is_no_mark() -> None:
    assert [block.runs for block in python_blocks("<!-- not run: -->\n```python\nx = 1\n```\n")] == [True]


def test_block_of_another_language_is_left_alone() -> None:
    assert python_blocks("```console\n$ vsssnap demo\n```\n") == []


def test_the_example_disk_has_holes(tmp_path: Path) -> None:
    prepare(tmp_path)
    state = (tmp_path / "disk.raw").stat()
    assert state.st_size == 3 << 20
    if sys.platform != "win32":
        assert state.st_blocks * 512 < state.st_size
