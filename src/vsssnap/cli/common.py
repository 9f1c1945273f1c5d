"""What all commands share: their options, and how they are made."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from vsssnap._units import parse_size
from vsssnap.cli.output import Output, logging_to_stderr

FuncT = TypeVar("FuncT", bound=Callable[..., Any])

PATH = click.Path(path_type=str, readable=False)  # click would answer for the library if it looked itself
"""A path that the library looks at, so that its errors and their remedies are the same everywhere."""


class Holder:
    """Carries the output of the command that runs to whoever reports its failure."""

    def __init__(self) -> None:
        self.out: Output | None = None


class CommandFailedError(Exception):
    """A command cannot do its work, for a reason outside of the library; the text says which."""


def command(
    name: str, *, examples: str, short: str | None = None
) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a command of a function that takes an `Output` first and returns an exit code.

    Args:
        name: Its name.
        examples: A line each.
        short: What the list of commands says, if the first sentence of its help is too long for it.
    """

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @click.pass_context
        @functools.wraps(function)
        def run(context: click.Context, /, **values: Any) -> int:  # noqa: ANN401 - click's own
            names = context.command_path.split()[1:]
            out = Output(
                " ".join(names),
                as_json=values.pop("as_json"),
                quiet=values.pop("quiet"),
                progress=values.pop("progress"),
                debug=values.pop("debug"),
            )
            if isinstance(context.obj, Holder):
                context.obj.out = out
            with logging_to_stderr(values.pop("verbose")):
                return function(out, **values) or 0

        shown = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines())
        return click.command(name, epilog=shown, short_help=short)(_common(run))

    return decorate


def _common(function: FuncT) -> FuncT:
    """The options that every command has; they come last in its help."""
    for option in reversed(
        (
            click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end."),
            click.option("-q", "--quiet", is_flag=True, help="Print errors and warnings only."),
            click.option(
                "-v", "--verbose", count=True, help="Show the steps on standard error; twice for all of them."
            ),
            click.option(
                "--progress",
                type=click.Choice(["auto", "bar", "json", "none"]),
                default="auto",
                help="Progress on standard error: a bar (auto: on a terminal only), or a JSON object a line.",
            ),
            click.option("--debug", is_flag=True, help="Show the traceback of an error."),
        )
    ):
        function = option(function)
    return function


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A number of bytes with a unit: ``64MiB``, ``1.5G``."""
    size = None if value is None else parse_size(value)
    if size == 0:
        raise click.BadParameter("it is at least 1", ctx, param)
    return size


def copy_options(function: FuncT) -> FuncT:
    """The options of commands that copy a volume."""
    for option in (
        click.option(
            "--rate-limit",
            callback=_size,
            metavar="SIZE",
            help="Bytes a second read from the source at most.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(1, 64),
            help="Threads that copy; by default about one a processor.",
        ),
    ):
        function = option(function)
    return function


def reading_options(function: FuncT) -> FuncT:
    """The options of commands that read images."""
    for option in reversed(
        (
            click.option(
                "--recover",
                is_flag=True,
                help="Also of an incomplete or damaged image, as far as it can be read.",
            ),
            click.option(
                "--parent",
                type=PATH,
                multiple=True,
                metavar="PATH",
                help="A parent that was moved or renamed, or a folder that holds parents.  Repeatable.",
            ),
        )
    ):
        function = option(function)
    return function


def read_error_option(function: FuncT) -> FuncT:
    """What a copy does with what cannot be read."""
    return click.option(
        "--on-read-error",
        type=click.Choice(["raise", "mark"]),
        default="raise",
        help="Stop, or mark the failing sectors unreadable and go on; then the exit code is 1.",
    )(function)


def image_options(function: FuncT) -> FuncT:
    """The options of commands that write an image."""
    for option in reversed(
        (
            click.option(
                "--format", "format_name", metavar="NAME", help="Format; by default that of the suffix."
            ),
            click.option(
                "--option",
                "options",
                multiple=True,
                metavar="KEY=VALUE",
                help="An option of the format; `vsssnap formats` lists them.  Repeatable.",
            ),
            click.option(
                "--replace", is_flag=True, help="Replace an existing image once the new one is complete."
            ),
            read_error_option,
            click.option(
                "--wrap/--no-wrap",
                default=None,
                help="Put the volume into a disk with one partition, so that it can be mounted.  "
                "[default: a volume in vhd, vhdx or vmdk]",
            ),
            copy_options,
        )
    ):
        function = option(function)
    return function


def is_block_device(path: str) -> bool:
    """Whether a path leads to a block device; of Windows to a volume, a disk or a shadow copy."""
    from vsssnap.blocks.target import is_device

    return is_device(path)
