"""The library's remedies in the words of the command line."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, TypeVar

from vsssnap.errors import VssSnapError

if TYPE_CHECKING:
    from collections.abc import Sequence

ErrorT = TypeVar("ErrorT", bound=BaseException)

# What hints say to callers of the library, and what they say here.  The longest come first.
WORDS: Sequence[tuple[str, str]] = (
    ("pass quiesce= managers that declare APPLICATION, or lower require=",
     "pass --stop-service or --before, --after and --claims-application, or lower --require"),
    ("list_snapshots() shows those there are", "`vsssnap snapshots list` shows those there are"),
    ("open devices with open_device", "name an image's file; a device can be saved with `vsssnap save`"),
    ("what is mounted is read through a Snapshot", "what is mounted there can be saved with `vsssnap save`"),
    ("on_read_error=OnReadError.MARK", "--on-read-error mark"),
    ('open it with format="raw"', "pass {format} raw"),
    ('name format="raw" if it is raw', "pass {format} raw if it is raw"),
    ("give it one, or say uncovered=Uncovered.READ or Uncovered.LEAVE_OUT", "save its volumes one by one"),
    ("uncovered=Uncovered.READ", "--uncovered read"),
    ("Uncovered.LEAVE_OUT", "--uncovered leave-out"),
    ("give one, such as Partitions(disk)[2].open()", "name one with --partition"),
    ("pass fixed=True too", "pass --option fixed=yes too"),
    ("read what is left with recover=True", "take what is left with --recover"),
    ("pass recover=True", "pass --recover"),
    ("open it with recover=True", "pass --recover"),
    ("recover=True", "--recover"),
    ("name it with parent=", "name it with --parent"),
    ("an image that is saved with the option sidecar=True has CONTENT too",
     "an image that is saved with --option sidecar=yes has content too"),
    ("replace=True", "--replace"),
    ('such as format="vsnap"', "such as --format vsnap"),
    ("name format=", "name it with --format"),
    ("lower require=", "lower --require"),
    ("raise timeout=", "raise --timeout"),
    ("before= or after=", "--before or --after"),
)  # fmt: skip

# The option --parent of `save` names the image itself; of where its own parents are it has none.
_NO_OPTION = {"save": (", or name it with parent=",)}

_STEP = re.compile(r"raise timeouts=StepTimeouts\(\w+=\) or ")  # which no command can set
_OPTION = re.compile(r"\b([a-z_]+)=(?![\w\"'])")  # of a format or provider: --option takes it
_VALUE = re.compile(r"\b([a-z_]+)=\"([^\"]*)\"")
_LIBRARY = re.compile(r"\b\w+=(?!\w)|\b[a-z]+=[A-Z]\w+|\b[a-z_]+\(\)")


# What the option for the format of an image that is read is called; elsewhere --format.
_FORMAT = {"save": "--input-format", "convert": "--input-format", "compare": "--format-a or --format-b"}


def translated(hint: str, command: str = "") -> str:
    """A remedy as a user of a command can follow it."""
    hint = _STEP.sub("", hint)
    for library in _NO_OPTION.get(command, ()):
        hint = hint.replace(library, "")
    for library, program in WORDS:
        hint = hint.replace(library, program.format(format=_FORMAT.get(command, "--format")))
    return _OPTION.sub(r"option \1", _VALUE.sub(r"--option \1=\2", hint))


def speaks_python(hint: str) -> bool:
    """Whether a remedy still talks of arguments and functions."""
    return bool(_LIBRARY.search(hint))


def for_people(error: ErrorT, command: str = "") -> ErrorT:
    """The same error with its remedy in these words; others as they are."""
    if not isinstance(error, VssSnapError) or not error.hint:
        return error
    changed = copy.copy(error)
    changed.hint = translated(error.hint, command)
    for note in getattr(error, "__notes__", ()):
        if note not in getattr(changed, "__notes__", ()):
            changed.add_note(note)
    return changed
