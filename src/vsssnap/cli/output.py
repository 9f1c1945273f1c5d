"""What the program says: results, progress, warnings and errors, for people or for machines."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import logging
import os
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from vsssnap._units import format_size
from vsssnap.cli import interrupts
from vsssnap.errors import VssSnapError

if TYPE_CHECKING:
    from vsssnap.imaging.reports import Progress, ProgressCallback

_REDRAW = 0.1  # seconds between two pictures of a bar, or two lines of JSON progress


def safe(text: object) -> str:
    """Text that cannot command a terminal: control characters and broken names are escaped.

    Names and metadata come from images, and those may come from anywhere.
    """
    return "".join(
        char
        if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs")
        else char.encode("unicode_escape").decode("ascii")
        for char in str(text)
    )


def plain(value: Any) -> Any:  # noqa: ANN401 - anything that a report holds
    """A value as JSON has it: enums by name, times in ISO 8601, bytes by their number."""
    if isinstance(value, enum.StrEnum):
        return value.value
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": len(value)}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str | int | float) or value is None:
        return value
    if isinstance(value, UUID | os.PathLike):
        return str(value)
    return repr(value)


def describe_error(error: BaseException, code: int) -> dict[str, Any]:
    """An error as JSON."""
    described: dict[str, Any] = {
        "class": type(error).__name__,
        "message": str(error),
        "exit_code": code,
        "notes": list(getattr(error, "__notes__", ())),
    }
    if isinstance(error, VssSnapError):
        described["message"] = error.message
        described["retryable"] = error.retryable
        # Every class keeps its facts under its own names: .reasons, .offset, .wanted ...
        described |= {
            name: plain(value)
            for name, value in vars(error).items()
            if not name.startswith("_") and name not in described
        }
    return described


class Output:
    """Where one command says what.

    Results go to the standard output, everything else to the standard error.  With ``json`` the
    standard output gets one document at the end and nothing else.

    Attributes:
        command: Name of the command, for documents.
        warnings: What was warned of.
        taken: Whether the standard output carries an image, so that results go to standard error.
    """

    def __init__(
        self,
        command: str,
        *,
        as_json: bool = False,
        quiet: bool = False,
        progress: str = "auto",
        debug: bool = False,
    ) -> None:
        self.command = command
        self.json = as_json
        self.quiet = quiet
        self.debug = debug
        self.taken = False
        self._progress = progress
        self.warnings: list[str] = []

    # Words.

    def say(self, text: str = "", **style: Any) -> None:  # noqa: ANN401 - click.style's own arguments
        """A line of the result, for people."""
        if not self.json and not self.quiet:
            click.secho(safe(text), err=self.taken, **style)

    def facts(self, facts: Iterable[tuple[str, object]]) -> None:
        """Names and values below each other."""
        shown = [(name, str(value)) for name, value in facts if value not in (None, "")]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self.say(f"  {name:<{width}}  {value}")

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Columns that are as wide as they must be, never cut: lines stay good for grep."""
        if not rows:
            return
        rows = [[safe(cell) for cell in row] for row in rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            self.say("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())

    def warn(self, text: str) -> None:
        """Something the user must know; also with ``quiet``, and part of the JSON document."""
        self.warnings.append(text)
        if not self.json:
            click.secho(f"warning: {safe(text)}", err=True, fg="yellow")

    def document(self, ok: bool, values: Mapping[str, Any]) -> None:
        """The JSON document of the command, if JSON is asked for."""
        if self.json:
            whole: dict[str, Any] = {"command": self.command, "ok": ok}
            if self.warnings:
                whole["warnings"] = self.warnings
            click.echo(json.dumps(whole | plain(values)), err=self.taken)

    def fail(self, error: BaseException, code: int) -> None:
        """The error that ends the command."""
        if self.json:
            self.document(False, {"error": describe_error(error, code)})
            return
        lines = [str(error) or type(error).__name__, *getattr(error, "__notes__", ())]
        click.secho(f"vsssnap: {safe(lines[0])}", err=True, fg="red")
        for line in lines[1:]:
            click.echo(f"  {safe(line)}", err=True)

    # Progress.

    @contextlib.contextmanager
    def progress(self, label: str) -> Iterator[ProgressCallback]:
        """Show how far an operation is; the callback is also where a signal ends it.

        Args:
            label: What is being done.
        """
        kind = self._progress
        if kind == "auto":
            kind = "bar" if not self.quiet and not self.json and sys.stderr.isatty() else "none"
        if kind == "bar":
            with _bar(label) as show:
                yield _interruptible(show)
        elif kind == "json":
            yield _interruptible(_json_lines(label))
        else:
            yield _interruptible(None)


def _interruptible(show: ProgressCallback | None) -> ProgressCallback:
    def callback(seen: Progress) -> None:
        if seen.state != "done":  # then all is written and named, and there is nothing to stop
            interrupts.check()
        if show is not None:
            show(seen)

    return callback


def _json_lines(label: str) -> ProgressCallback:
    shown, state = 0.0, ""

    def show(seen: Progress) -> None:
        nonlocal shown, state
        now = time.monotonic()
        if now - shown >= _REDRAW or seen.state != state:
            shown, state = now, seen.state
            line = {
                "label": label,
                "state": seen.state,
                "done": seen.done,
                "total": seen.total,
                "read": seen.read,
                "rate": round(seen.rate),
            }
            click.echo(json.dumps({"progress": line}), err=True)

    return show


@contextlib.contextmanager
def _bar(label: str) -> Iterator[ProgressCallback]:
    # Only a terminal needs rich, and it takes longer to import than the rest of the program.
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
    )
    with Bar(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as bar:
        task = bar.add_task(safe(label), total=None, facts="")

        def show(seen: Progress) -> None:
            bar.update(
                task,
                description=safe(label if seen.state in ("copy", "done") else f"{label} ({seen.state})"),
                total=seen.total or 1,
                completed=seen.done if seen.total else 1,
                facts=facts_of(seen),
            )
            bar.refresh()

        yield show


def facts_of(seen: Progress) -> str:
    """Amount, rate and time left, for a bar."""
    text = f"{format_size(seen.done)} of {format_size(seen.total)}"
    if seen.rate > 0:
        text += f", {format_size(seen.rate)}/s {'checked' if seen.state == 'verify' else 'read'}"
    if seen.left is not None:
        hours, rest = divmod(round(seen.left), 3600)
        clock = f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
        text += f", {clock} left"
    return text


@contextlib.contextmanager
def logging_to_stderr(level: int) -> Iterator[None]:
    """Show the library's log on the standard error; 0 nothing, 1 steps, 2 everything."""
    if not level:
        yield
        return
    logger = logging.getLogger("vsssnap")
    handler = logging.StreamHandler(sys.stderr)
    origin = "" if level == 1 else "%(name)s %(levelname)s "
    handler.setFormatter(_Safe(f"%(relativeCreated)8.0f ms {origin}%(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if level == 1 else logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Safe(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return safe(super().format(record))
