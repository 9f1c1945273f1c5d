"""Everything vsssnap raises, one class per reaction of the caller.

::

    VssSnapError                          .call .code .hint .retryable
    ├── UsageError (ValueError)           the call itself is wrong; nothing was touched
    ├── ClosedError (ValueError)          the reader, writer or snapshot is closed
    ├── SnapshotError                     .reasons: provider name -> why not
    │   ├── ProviderUnavailableError      no provider can
    │   ├── SnapshotPermissionError (PermissionError)
    │   ├── SnapshotTimeoutError (TimeoutError)
    │   ├── SnapshotBusyError             retryable: somebody else holds what is needed
    │   ├── CancelledError
    │   ├── ConsistencyError              .wanted .offered
    │   ├── WriterFailedError             .writer .state
    │   ├── QuiesceError                  an application could not be quieted, or let go
    │   ├── InsufficientStorageError      no room for the copy-on-write data
    │   ├── SourceChangedError            the source was written while it had to be still
    │   ├── ChangesUnknownError           nobody knows what changed: take a full image
    │   └── SnapshotLostError             sticky: throw the copy away
    ├── DeviceReadError (OSError)         .offset .length
    ├── TargetError (OSError)             .path: full, failing
    │   └── TargetRefusedError            mounted, too small, exists, is the source
    └── ImageError                        .path
        ├── ImageNotFoundError (FileNotFoundError)
        ├── UnknownFormatError
        ├── CorruptImageError             .structure .offset
        ├── UnsupportedFeatureError       .feature
        └── ParentMismatchError

``str(error)`` says what failed, where, with which number, and ends with the remedy
(`hint`).  All survive `pickle` and `copy`.  Failures met while cleaning up become notes
(`BaseException.add_note`) on the first error, never a second exception.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, Self

__all__ = [
    "VssSnapError",
    "UsageError",
    "ClosedError",
    "SnapshotError",
    "ProviderUnavailableError",
    "SnapshotPermissionError",
    "SnapshotTimeoutError",
    "SnapshotBusyError",
    "CancelledError",
    "ConsistencyError",
    "WriterFailedError",
    "QuiesceError",
    "InsufficientStorageError",
    "SourceChangedError",
    "ChangesUnknownError",
    "SnapshotLostError",
    "DeviceReadError",
    "TargetError",
    "TargetRefusedError",
    "ImageError",
    "ImageNotFoundError",
    "UnknownFormatError",
    "CorruptImageError",
    "UnsupportedFeatureError",
    "ParentMismatchError",
]


_MAX_ERRNO = 0xFFFF  # larger codes are HRESULTs


def _set_errno(error: BaseException, code: int) -> None:
    """Fill in what callers of `OSError` look at."""
    if isinstance(error, OSError):
        error.errno = code


def _rebuild(
    cls: type[VssSnapError], message: str, data: dict[str, Any], extra: dict[str, Any]
) -> VssSnapError:
    error = cls(message, **data)
    error.__dict__.update(extra)
    return error


class VssSnapError(Exception):
    """Base of everything this library raises; never raised itself.

    Attributes:
        call: The system or COM call that failed (``"ioctl(FICLONE)"``), or "".
        code: Its number: an errno, or an HRESULT as unsigned 32 bits; None if there is none.
        hint: What to do about it; appended to the message.
        retryable: Whether the same call may succeed later with nothing changed by the caller.
        retry_after: Seconds that should pass before that.
        retry_limit: How often it is worth trying again; 0 for no limit.
    """

    retryable: bool = False
    retry_after: float = 0.0
    retry_limit: int = 0
    _fields: ClassVar[tuple[str, ...]] = ("call", "code", "hint")

    def __init__(self, message: str, *, call: str = "", code: int | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.call = call
        self.code = code
        self.hint = hint
        if code is not None and code <= _MAX_ERRNO:
            _set_errno(self, code)

    def __str__(self) -> str:
        text = self.message
        if self.call or self.code is not None:
            number = (
                ""
                if self.code is None
                else f"0x{self.code:08x}"
                if self.code > _MAX_ERRNO
                else str(self.code)
            )
            where = " ".join(part for part in (self.call, f"error {number}" if number else "") if part)
            text += f" [{where}]"
        return f"{text}: {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        data = {name: getattr(self, name) for name in self._fields}
        known = {*self._fields, "message"}
        extra = {name: value for name, value in self.__dict__.items() if name not in known}
        return (_rebuild, (type(self), self.message, data, extra))


class UsageError(VssSnapError, ValueError):
    """The call is wrong in itself (a negative offset, an unknown option); nothing was touched."""


class ClosedError(VssSnapError, ValueError):
    """The object is closed; open it again."""


class SnapshotError(VssSnapError):
    """A snapshot could not be taken, read or released.

    Attributes:
        reasons: For every provider that was asked, why it cannot, or what it offers; empty if it
            is not about that.
        unrelated: Those of them that are for other systems or other kinds of volumes; the text
            leaves them out.
    """

    _fields = (*VssSnapError._fields, "reasons", "unrelated")

    def __init__(
        self,
        message: str,
        *,
        reasons: Mapping[str, str] | None = None,
        unrelated: Collection[str] = (),
        call: str = "",
        code: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, call=call, code=code, hint=hint)
        self.reasons = dict(reasons or {})
        self.unrelated = tuple(unrelated)

    def __str__(self) -> str:
        shown = {name: reason for name, reason in self.reasons.items() if name not in self.unrelated}
        lines = [f"\n  {name}: {reason}" for name, reason in (shown or self.reasons).items()]
        return super().__str__() + "".join(lines)


class ProviderUnavailableError(SnapshotError):
    """No provider can take this snapshot; ``reasons`` says why, for each."""


class SnapshotPermissionError(SnapshotError, PermissionError):
    """The process lacks a right or capability; `hint` names it."""


class SnapshotTimeoutError(SnapshotError, TimeoutError):
    """The time budget ran out; what was begun has been undone."""


class SnapshotBusyError(SnapshotError):
    """Somebody else is taking a snapshot or holds the volume; try again later."""

    retryable = True


class CancelledError(SnapshotError):
    """`Snapshot.cancel` was called; what was begun has been undone."""


class ConsistencyError(SnapshotError):
    """The asked-for consistency cannot be had; nothing is ever degraded silently.

    Attributes:
        wanted: Name of the level that was required (``"APPLICATION"``).
        offered: Name of the best level on offer, or "" if there is none.
    """

    _fields = (*SnapshotError._fields, "wanted", "offered")

    def __init__(
        self,
        message: str,
        *,
        wanted: str = "",
        offered: str = "",
        reasons: Mapping[str, str] | None = None,
        unrelated: Collection[str] = (),
        call: str = "",
        code: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, reasons=reasons, unrelated=unrelated, call=call, code=code, hint=hint)
        self.wanted = wanted
        self.offered = offered


class WriterFailedError(SnapshotError):
    """A participating VSS writer failed.

    Attributes:
        writer: Name of the writer.
        state: Its state when it failed.
    """

    _fields = (*SnapshotError._fields, "writer", "state")

    def __init__(
        self,
        message: str,
        *,
        writer: str = "",
        state: str = "",
        reasons: Mapping[str, str] | None = None,
        unrelated: Collection[str] = (),
        call: str = "",
        code: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, reasons=reasons, unrelated=unrelated, call=call, code=code, hint=hint)
        self.writer = writer
        self.state = state


class QuiesceError(SnapshotError):
    """An application could not be quieted before the instant, or not let go after it."""


class InsufficientStorageError(SnapshotError):
    """There is no room for the data that copy-on-write has to keep."""


class SourceChangedError(SnapshotError):
    """The source was written while it had to be still; the copy is worth nothing."""


class ChangesUnknownError(SnapshotError):
    """What changed since an earlier snapshot cannot be told; take a full image instead."""


class SnapshotLostError(SnapshotError):
    """The snapshot no longer exists.  Sticky: every later call fails too; discard the copy.

    What the system noted about it, if it did, is in the notes (`BaseException.add_note`).
    """


class DeviceReadError(VssSnapError, OSError):
    """The device failed to deliver a range.

    Attributes:
        offset: First byte of the range.
        length: Its length in bytes.
    """

    _fields = (*VssSnapError._fields, "offset", "length")

    def __init__(
        self,
        message: str,
        *,
        offset: int = 0,
        length: int = 0,
        call: str = "",
        code: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, call=call, code=code, hint=hint)
        self.offset = offset
        self.length = length


class TargetError(VssSnapError, OSError):
    """Writing failed: the target is full or failing.

    Attributes:
        path: The target.
    """

    _fields = (*VssSnapError._fields, "path")

    def __init__(
        self, message: str, *, path: str = "", call: str = "", code: int | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, call=call, code=code, hint=hint)
        self.path = path


class TargetRefusedError(TargetError):
    """The target must not be written: it exists, is mounted, too small, or the source itself."""


class ImageError(VssSnapError):
    """An image cannot be used.

    Attributes:
        path: The image.
    """

    _fields = (*VssSnapError._fields, "path")

    def __init__(
        self, message: str, *, path: str = "", call: str = "", code: int | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, call=call, code=code, hint=hint)
        self.path = path


class ImageNotFoundError(ImageError, FileNotFoundError):
    """There is no image of this name."""


class UnknownFormatError(ImageError):
    """No installed format recognises the image, or the name asks for an unknown one."""


class CorruptImageError(ImageError):
    """The image breaks its format's rules or fails a checksum.

    Attributes:
        structure: Which structure ("footer", "index page"), in the specification's words.
        offset: Where in the file it begins, bytes; None if it has no place.
    """

    _fields = (*ImageError._fields, "structure", "offset")

    def __init__(
        self,
        message: str,
        *,
        path: str = "",
        structure: str = "",
        offset: int | None = None,
        call: str = "",
        code: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, path=path, call=call, code=code, hint=hint)
        self.structure = structure
        self.offset = offset

    def at(self, path: str, offset: int = 0) -> Self:
        """Complete an error raised by a parser that knew neither the file nor its own place in it."""
        self.path = self.path or path
        self.offset = (self.offset or 0) + offset
        return self


class UnsupportedFeatureError(ImageError):
    """The image is sound but uses a feature this version does not know.

    Attributes:
        feature: Its name or bit.
    """

    _fields = (*ImageError._fields, "feature")

    def __init__(
        self,
        message: str,
        *,
        path: str = "",
        feature: str = "",
        call: str = "",
        code: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, path=path, call=call, code=code, hint=hint)
        self.feature = feature


class ParentMismatchError(ImageError):
    """The parent on hand is not the image this one was made against."""
