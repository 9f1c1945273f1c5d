"""Exit codes: one for each reaction of whoever called the program.

``docs/cli.md`` shows the same table; a test holds the two together.
"""

from __future__ import annotations

from vsssnap import errors

OK = 0
FOUND = 1
"""The command did its work and found something wrong: damage, differences, unreadable ranges."""
USAGE = 2
INTERNAL = 70
"""A bug in vsssnap, or no memory; sysexits.h calls it EX_SOFTWARE."""
PIPE = 141
"""Nobody reads the standard output any more; what a shell shows for SIGPIPE."""
SIGNAL = 128
"""Plus the number of the signal that ended the program: 130 for Ctrl-C, 143 for SIGTERM."""

BY_CLASS: dict[type[errors.VssSnapError], int] = {
    errors.UsageError: USAGE,
    errors.ProviderUnavailableError: 3,
    errors.ConsistencyError: 4,
    errors.SnapshotPermissionError: 5,
    errors.SnapshotBusyError: 6,
    errors.SnapshotTimeoutError: 7,
    errors.WriterFailedError: 8,
    errors.QuiesceError: 9,
    errors.InsufficientStorageError: 10,
    errors.SourceChangedError: 11,
    errors.SnapshotLostError: 12,
    errors.CancelledError: 13,
    errors.SnapshotError: 14,
    errors.DeviceReadError: 15,
    errors.TargetRefusedError: 16,
    errors.TargetError: 17,
    errors.ImageNotFoundError: 18,
    errors.UnknownFormatError: 19,
    errors.UnsupportedFeatureError: 20,
    errors.CorruptImageError: 21,
    errors.ParentMismatchError: 22,
    errors.ImageError: 23,
    errors.ClosedError: INTERNAL,
    errors.VssSnapError: INTERNAL,
}
"""The code of a class; a class that is not here has that of its nearest base."""


def code_of(error: BaseException) -> int:
    """The exit code for an error; `INTERNAL` for one that is not the library's."""
    for cls in type(error).__mro__:
        if cls in BY_CLASS:
            return BY_CLASS[cls]
    return INTERNAL
