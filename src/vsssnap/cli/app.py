"""The program: its commands, and what happens when one fails."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from vsssnap import __version__

# Of the library these load what --help needs and no more; the rest comes when a command runs.
from vsssnap.cli import demo, doctor, exits, images, interrupts, machine, saving, verifying, vss
from vsssnap.cli.common import CommandFailedError, Holder
from vsssnap.cli.output import Output, safe
from vsssnap.cli.wording import for_people
from vsssnap.errors import CancelledError, TargetError, UsageError, VssSnapError

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _PipeClosedError(Exception):
    """Nobody reads the standard output any more."""


class App(click.Group):
    """The top command; every error leaves it as a message and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,  # noqa: ANN401 - click's own
    ) -> NoReturn:
        """Run, and exit with the code of docs/cli.md."""
        words = list(sys.argv[1:] if args is None else args)
        holder = Holder()
        try:
            with interrupts.installed():
                code = self._guarded(holder, words, prog_name or "vsssnap", complete_var, extra)
        except interrupts.Interrupted as exc:  # between the last step and here
            code = exits.SIGNAL + exc.number
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own
        """Run the command.  Of a pipe whose reader has ended we tell: click would exit with 1, "damage"."""
        try:
            return super().invoke(ctx)
        except OSError as exc:
            if _is_unread(exc):
                raise _PipeClosedError from exc
            raise

    def _guarded(
        self, holder: Holder, words: list[str], name: str, complete_var: str | None, extra: dict[str, Any]
    ) -> int:
        try:
            code = super().main(words, name, complete_var, standalone_mode=False, obj=holder, **extra)
            click.echo(nl=False)  # what is held back goes out now, while an error of that is told
            return code if isinstance(code, int) else exits.OK
        except BaseException as exc:
            if isinstance(exc, _PipeClosedError) or (isinstance(exc, OSError) and _is_unread(exc)):
                _drop_output()
                return exits.PIPE
            return _failed(_of_output(exc), holder, words)


def _failed(error: BaseException, holder: Holder, words: list[str]) -> int:
    """Report what ended the program; its exit code."""
    # An argument is missing: click never came to the command, but knows which one it is.
    context = getattr(error, "ctx", None)
    name = " ".join(context.command_path.split()[1:]) if isinstance(context, click.Context) else ""
    out = holder.out or Output(name, as_json="--json" in words, debug="--debug" in words)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else exits.INTERNAL
    if out.debug and not isinstance(error, click.ClickException):
        with contextlib.suppress(OSError):
            click.echo(safe("".join(traceback.format_exception(error))), err=True)
    shown: BaseException = error
    if isinstance(error, click.exceptions.Abort | KeyboardInterrupt) or _is_cancel(error):
        code = exits.SIGNAL + (interrupts.pending() or 2)
        shown = KeyboardInterrupt("interrupted")
        for each in (error, error.__cause__):  # click's own, of one that has the notes
            for note in getattr(each, "__notes__", ()):
                shown.add_note(note)
    elif isinstance(error, click.ClickException):
        code = error.exit_code
        if not out.json:
            error.show()
            return code
        shown = UsageError(error.format_message())
    elif isinstance(error, CommandFailedError):
        code = exits.FOUND
    elif isinstance(error, VssSnapError):
        code = exits.code_of(error)
        shown = for_people(error, out.command)
    else:
        code = exits.INTERNAL
        shown = RuntimeError(f"this is a bug in vsssnap: {type(error).__name__}: {error}")
        if isinstance(error, MemoryError):
            shown = MemoryError("there is not enough memory")
        elif not out.debug:
            shown.add_note("run it again with --debug and report what it shows")
    with contextlib.suppress(OSError):  # nobody is there to read it
        out.fail(shown, code)
    return code


def _is_cancel(error: BaseException) -> bool:
    """Whether a signal cancelled the snapshot that this error comes from."""
    return isinstance(error, CancelledError) and bool(interrupts.pending())


def _is_of_output(error: BaseException) -> bool:
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return isinstance(error, OSError) and any(frame.f_code is click.echo.__code__ for frame in frames)


def _is_unread(error: OSError) -> bool:
    """Whether it says that nobody reads the standard output any more.

    The C library of Windows has no number for what the system says of such a pipe, and gives EINVAL.
    """
    if errno.EPIPE in (error.errno, getattr(error, "code", None)):
        return True
    if error.errno != errno.EINVAL or not _is_of_output(error):
        return False
    with contextlib.suppress(OSError, ValueError):
        return stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
    return False


def _of_output(error: BaseException) -> BaseException:
    """The same error, or what to say where it is the standard output that takes no more."""
    if not isinstance(error, OSError) or not _is_of_output(error):
        return error
    _drop_output()
    return TargetError(
        f"the standard output cannot be written: {error.strerror}",
        call="write",
        code=error.errno,
        hint="make room where it goes to; what the command did is done",
    )


def _drop_output() -> None:
    """Keep the interpreter's last flush from complaining as well."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(
    cls=App,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExamples:\n"
    "  vsssnap demo                                 see what a torn image is, and one that is not\n"
    "  vsssnap save /srv/data data.vsnap            image a mounted volume through a snapshot\n"
    "  vsssnap verify data.vsnap                    check it\n"
    "  vsssnap restore data.vsnap /dev/sdb1         write it back\n"
    "  vsssnap doctor                               what this machine can do, and what it lacks",
)
@click.version_option(__version__, prog_name="vsssnap")
def app() -> None:
    """Take consistent block-level images of volumes that go on being written.

    Exit codes: 0 done; 1 damage, differences or unreadable ranges found; 2 wrong usage; 3 no
    provider; 4 not that consistent; 5 no rights; 6 to 14 another failure of the snapshot; 15 the
    source; 16 the target is refused; 17 it fails; 18 no such image; 19 to 23 what is wrong with one;
    70 a bug; 130 and 143 after Ctrl-C and SIGTERM.
    """


for _command in (
    saving.save,
    images.restore,
    verifying.verify,
    images.info,
    saving.convert,
    images.compare,
    machine.snapshots,
    machine.providers,
    machine.formats,
    vss.writers,
    vss.shadow_storage,
    doctor.doctor,
    demo.demo,
):
    app.add_command(_command)


class _Forgiving(io.FileIO):
    """The standard error, which may be full or unread: what it does not take is no failure of the work."""

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data)
        written: int | None = None  # so of a pipe that would have to be waited for
        with contextlib.suppress(OSError):
            written = super().write(view)
        return view.nbytes if written is None else written


def run(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    error = sys.__stderr__  # which stays open when another takes its place
    if error is not None and sys.stderr is error and not error.isatty():
        with contextlib.suppress(ValueError, OSError):
            raw = _Forgiving(error.fileno(), "w", closefd=False)
            sys.stderr = io.TextIOWrapper(
                io.BufferedWriter(raw), encoding=error.encoding, line_buffering=True
            )
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks must not end the program.
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a replaced stream may lack it
    app.main(args)
