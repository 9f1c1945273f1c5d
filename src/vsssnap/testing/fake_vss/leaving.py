"""What a writer says of a component in a requester's document, while it handles an event.

Written from the pages of the setters of IVssComponent to Ex2 in the Windows SDK documentation: each is a
writer's alone, in a backup or in a restore, some in one event.  A requester that calls one is told that it
is out of order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import RestoreTarget
from vsssnap._win32.hresult import HResult, unsigned

if TYPE_CHECKING:
    from vsssnap.testing.fake_vss.documents import SavedComponent

CData = Any
_OK, _BAD, _INVALID = HResult.S_OK, HResult.VSS_E_BAD_STATE, HResult.E_INVALIDARG
_BACKUP = ("prepare_backup", "post_snapshot")
_RESTORE = ("pre_restore", "post_restore")
_FAILURES = (
    HResult.S_OK,
    HResult.VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT,
    HResult.VSS_E_WRITERERROR_OUTOFRESOURCES,
    HResult.VSS_E_WRITERERROR_TIMEOUT,
    HResult.VSS_E_WRITERERROR_RETRYABLE,
    HResult.VSS_E_WRITERERROR_NONRETRYABLE,
)
"""What SetFailure takes."""


def _text(text: CData) -> str:
    return str(ffi.string(text)) if text else ""


def lengths(ranges: str) -> list[int] | None:
    """The lengths in ``"offset:length, ..."``, decimal or hexadecimal; None if it is no such list."""
    try:
        pairs = [part.split(":") for part in ranges.split(",")]
        found = [(int(offset.strip(), 0), int(length.strip(), 0)) for offset, length in pairs]
    except ValueError:
        return None
    return [length for _, length in found] if all(offset >= 0 for offset, _ in found) else None


def _is_file(folder: CData, name: CData) -> bool:
    return bool(_text(folder)) and bool(_text(name)) and not set(_text(name)) & set('*?\\"')


class LeavingWord:
    """The setters of IVssComponent to Ex2; ``_event`` is what the writer handles, "" for a requester."""

    _saved: SavedComponent
    _event: str

    def _say(self, events: tuple[str, ...], what: str, text: CData) -> int:
        if self._event not in events:
            return _BAD
        setattr(self._saved, what, _text(text))
        return _OK

    def SetBackupMetadata(self, text: CData) -> int:
        """In a backup."""
        return self._say(_BACKUP, "backup_metadata", text)

    def SetBackupStamp(self, text: CData) -> int:
        """In a backup."""
        return self._say(_BACKUP, "stamp", text)

    def SetRestoreMetadata(self, text: CData) -> int:
        """At PreRestore, once."""
        if self._event == "pre_restore" and self._saved.restore_metadata:
            return HResult.VSS_E_OBJECT_ALREADY_EXISTS
        return self._say(("pre_restore",), "restore_metadata", text)

    def SetPreRestoreFailureMsg(self, text: CData) -> int:
        """At PreRestore."""
        return self._say(("pre_restore",), "before", text)

    def SetPostRestoreFailureMsg(self, text: CData) -> int:
        """At PostRestore."""
        return self._say(("post_restore",), "after", text)

    def SetPrepareForBackupFailureMsg(self, text: CData) -> int:
        """At PrepareForBackup."""
        return self._say(("prepare_backup",), "before_backup", text)

    def SetPostSnapshotFailureMsg(self, text: CData) -> int:
        """At PostSnapshot."""
        return self._say(("post_snapshot",), "after_snapshot", text)

    def SetRestoreTarget(self, target: int) -> int:
        """In a restore."""
        if self._event not in _RESTORE:
            return _BAD
        if target not in list(RestoreTarget) or target == RestoreTarget.VSS_RT_UNDEFINED:
            return _INVALID
        self._saved.target = RestoreTarget(target)
        return _OK

    def AddPartialFile(self, folder: CData, name: CData, ranges: CData, metadata: CData) -> int:
        """In a backup; ranges are a list, or the path of a file that holds them."""
        if self._event not in _BACKUP:
            return _BAD
        listed = lengths(_text(ranges)) is not None or "\\" in _text(ranges)
        if not _is_file(folder, name) or not listed:
            return _INVALID
        self._saved.partial_files.append((_text(folder), _text(name), _text(ranges), _text(metadata)))
        return _OK

    def AddDirectedTarget(self, *given: CData) -> int:
        """In a restore; the ranges of source and target are as many and as long."""
        if self._event not in _RESTORE:
            return _BAD
        folder, name, ranges, new_folder, new_name, new_ranges = given
        sizes = lengths(_text(ranges))
        if not (_is_file(folder, name) and _is_file(new_folder, new_name)):
            return _INVALID
        if sizes is None or sizes != lengths(_text(new_ranges)):
            return _INVALID
        self._saved.directed.append(tuple(map(_text, given)))
        return _OK

    def AddDifferencedFilesByLastModifyTime(
        self, folder: CData, spec: CData, recursive: int, time: CData
    ) -> int:
        """In a backup; a time of 0 leaves it to the requester."""
        if self._event not in _BACKUP:
            return _BAD
        if not _text(folder) or not _text(spec) or "\\" in _text(spec):
            return _INVALID
        when = time.dwHighDateTime << 32 | time.dwLowDateTime
        self._saved.differenced.append((_text(folder), _text(spec), bool(recursive), when))
        return _OK

    def AddDifferencedFilesByLastModifyLSN(self, *given: CData) -> int:
        """Its page: not supported, reserved for system use."""
        del given
        return HResult.E_NOTIMPL

    def SetFailure(self, code: int, application: int, message: CData, reserved: int) -> int:
        """In any event in which a writer gets its components."""
        if not self._event:
            return _BAD
        if unsigned(code) not in _FAILURES or reserved:
            return _INVALID
        self._saved.failure = (unsigned(code), unsigned(application), _text(message))
        return _OK
