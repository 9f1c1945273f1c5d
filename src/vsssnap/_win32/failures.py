"""What an HRESULT means to the person who wanted a snapshot, as data.

Sources: the pages of IVssBackupComponents and IVssAsync in the Windows SDK documentation, "Event
and Error Handling Under VSS", "Writer Errors and Vss Writer Error Codes"; retry advice from
IVssBackupComponents::DoSnapshotSet and ::GetWriterStatus (wait ten minutes, up to three times).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from vsssnap._win32.hresult import HResult, name_of
from vsssnap.errors import (
    CancelledError,
    InsufficientStorageError,
    ProviderUnavailableError,
    SnapshotBusyError,
    SnapshotError,
    SnapshotPermissionError,
    WriterFailedError,
)


class Retry(enum.Enum):
    """What trying again needs."""

    NEVER = "never"
    """The same call fails again."""
    SAME = "same"
    """The same call on the same object; somebody else is in the way."""
    ONCE = "once"
    """A new object, once: the service has hiccuped."""
    FRESH = "fresh"
    """A new object after a pause, three times at most: the machine is under load."""
    USER = "user"
    """After somebody did what the hint says."""


RETRY_PAUSE = 30.0  # seconds before the first new try; doubled for each after it
RETRY_LIMITS = {Retry.ONCE: 1, Retry.FRESH: 3}

_EVENTS = "look for source VSS in the Application event log"
_WRITERS = "see `vssadmin list writers`, and " + _EVENTS
_LOAD = "try when the disks are less busy, take fewer volumes at once; chkdsk finds a damaged file system"
_BUG = "please report this with a log of level DEBUG: it is an error in vsssnap, or of a broken VSS"
_LOCAL = "name a local volume: a drive letter, a mounted folder, or \\\\?\\Volume{...}\\"
_TRANSPORT = "it concerns shadow copies that are moved between machines, which vsssnap does not do"


@dataclass(frozen=True, slots=True)
class Fact:
    """One HRESULT.

    Attributes:
        error: What it is raised as.
        retry: Whether and how to try again.
        meaning: What happened, without a full stop.
        hint: What to do.
    """

    error: type[SnapshotError]
    retry: Retry
    meaning: str
    hint: str = ""


_N, _S, _1, _F, _U = Retry.NEVER, Retry.SAME, Retry.ONCE, Retry.FRESH, Retry.USER
_H = HResult

FACTS: dict[HResult, Fact] = {
    # The system and COM.
    _H.E_ACCESSDENIED: Fact(
        SnapshotPermissionError,
        _U,
        "access was denied",
        "run as administrator (elevated), as a backup operator, or list the account under VssAccessControl",
    ),
    _H.E_INVALIDARG: Fact(SnapshotError, _N, "an argument is not valid", _BUG),
    _H.E_OUTOFMEMORY: Fact(SnapshotError, _U, "memory is exhausted", "end other programs"),
    _H.E_NOTIMPL: Fact(
        ProviderUnavailableError,
        _N,
        "this Windows or VSS provider does not have the operation",
        "see `vssadmin list providers`; some operations are those of Windows Server alone",
    ),
    _H.E_UNEXPECTED: Fact(SnapshotError, _1, "the service failed", _EVENTS),
    _H.E_FAIL: Fact(SnapshotError, _1, "the service failed", _EVENTS),
    _H.REGDB_E_CLASSNOTREG: Fact(
        ProviderUnavailableError, _N, "VSS is not installed here", "Windows PE and containers have none"
    ),
    _H.RPC_S_SERVER_UNAVAILABLE: Fact(SnapshotError, _1, "the service does not answer", _EVENTS),
    _H.RPC_S_CALL_FAILED: Fact(SnapshotError, _1, "the service ended during the call", _EVENTS),
    _H.RPC_S_CALL_FAILED_DNE: Fact(SnapshotError, _1, "the service ended before the call", _EVENTS),
    _H.ERROR_SERVICE_DISABLED: Fact(
        ProviderUnavailableError,
        _U,
        "the service Volume Shadow Copy is disabled",
        "enable it: sc config VSS start= demand",
    ),
    # Order and objects.
    _H.VSS_E_BAD_STATE: Fact(SnapshotError, _N, "the call came out of order", _BUG),
    _H.VSS_E_UNEXPECTED: Fact(SnapshotError, _1, "VSS failed unexpectedly", _EVENTS),
    _H.VSS_E_OBJECT_NOT_FOUND: Fact(
        ProviderUnavailableError, _N, "there is no such volume or shadow copy", _LOCAL
    ),
    _H.VSS_E_OBJECT_ALREADY_EXISTS: Fact(SnapshotError, _N, "it is there already", _BUG),
    _H.VSS_S_ASYNC_CANCELLED: Fact(CancelledError, _N, "it was cancelled"),
    # Providers and volumes.
    _H.VSS_E_PROVIDER_NOT_REGISTERED: Fact(
        ProviderUnavailableError, _N, "no such VSS provider is installed", "see `vssadmin list providers`"
    ),
    _H.VSS_E_PROVIDER_VETO: Fact(
        SnapshotError, _F, "the VSS provider refused", _EVENTS + "; auto_recovery=False helps some"
    ),
    _H.VSS_E_UNEXPECTED_PROVIDER_ERROR: Fact(
        SnapshotError,
        _F,
        "the VSS provider failed",
        "see `vssadmin list providers` and name the system provider; chkdsk",
    ),
    _H.VSS_E_VOLUME_NOT_SUPPORTED: Fact(
        ProviderUnavailableError,
        _N,
        "no VSS provider can snapshot the volume",
        "FAT, exFAT and some virtual disks cannot be; dismount it and read it with open_device",
    ),
    _H.VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER: Fact(
        ProviderUnavailableError, _N, "this VSS provider cannot snapshot the volume", "name no provider"
    ),
    _H.VSS_E_VOLUME_NOT_LOCAL: Fact(ProviderUnavailableError, _N, "the volume is not local", _LOCAL),
    _H.VSS_E_UNSUPPORTED_CONTEXT: Fact(
        ProviderUnavailableError,
        _N,
        "this Windows or provider cannot make such a shadow copy",
        "lasting ones need NTFS; leave out persistent=, auto_recovery= and vss_provider=",
    ),
    _H.VSS_E_NOT_SUPPORTED: Fact(
        ProviderUnavailableError,
        _N,
        "the operation is not supported",
        "see `vssadmin list providers`; another VSS provider may have it",
    ),
    _H.VSS_E_NESTED_VOLUME_LIMIT: Fact(
        ProviderUnavailableError,
        _N,
        "a volume in a virtual disk and the volume that holds it cannot be in one set",
        "take them one after the other; they are then of two instants",
    ),
    _H.VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED: Fact(
        ProviderUnavailableError, _N, "there are too many volumes in the set", "at most 64 at one instant"
    ),
    _H.VSS_E_UNSELECTED_VOLUME: Fact(
        SnapshotError, _N, "a component lies on a volume that is not in the set", "add that volume"
    ),
    # Others at work.
    _H.VSS_E_SNAPSHOT_SET_IN_PROGRESS: Fact(
        SnapshotBusyError,
        _S,
        "another program is creating a shadow copy",
        "wait for the other backup; if there is none, restart the services VSS and swprv",
    ),
    _H.VSS_E_VOLUME_IN_USE: Fact(SnapshotBusyError, _U, "the volume is in use", "close what is open on it"),
    _H.VSS_E_REVERT_IN_PROGRESS: Fact(SnapshotBusyError, _U, "the volume is being reverted", "wait for it"),
    # Load.
    _H.VSS_E_FLUSH_WRITES_TIMEOUT: Fact(
        SnapshotBusyError, _F, "the file system could not be flushed in time", _LOAD
    ),
    _H.VSS_E_HOLD_WRITES_TIMEOUT: Fact(
        SnapshotBusyError, _F, "writes could not be held long enough (10 s)", _LOAD
    ),
    _H.VSS_E_TRANSACTION_FREEZE_TIMEOUT: Fact(
        SnapshotBusyError, _F, "transactions could not be frozen in time", _LOAD
    ),
    _H.VSS_E_TRANSACTION_THAW_TIMEOUT: Fact(
        SnapshotBusyError, _F, "transactions could not be thawed in time", _LOAD
    ),
    _H.VSS_E_CLUSTER_TIMEOUT: Fact(SnapshotBusyError, _F, "the cluster did not answer in time", _LOAD),
    _H.VSS_E_CLUSTER_ERROR: Fact(SnapshotError, _F, "the cluster failed", _EVENTS),
    _H.VSS_E_FSS_TIMEOUT: Fact(SnapshotBusyError, _F, "the file server did not answer in time", _LOAD),
    _H.VSS_E_WRITER_NOT_RESPONDING: Fact(SnapshotBusyError, _F, "a writer did not answer", _WRITERS),
    _H.VSS_E_WRITER_STATUS_NOT_AVAILABLE: Fact(
        SnapshotBusyError, _F, "the writers' states are not known: too many backups at once", _WRITERS
    ),
    # Room.
    _H.VSS_E_INSUFFICIENT_STORAGE: Fact(
        InsufficientStorageError,
        _U,
        "there is no room for shadow storage",
        "make room on the volume, or enlarge it: vssadmin resize shadowstorage",
    ),
    _H.VSS_E_MAXIMUM_NUMBER_OF_SNAPSHOTS_REACHED: Fact(
        InsufficientStorageError,
        _U,
        "the volume has as many shadow copies as it can have",
        "delete old ones: vssadmin delete shadows",
    ),
    _H.VSS_E_MAXIMUM_DIFFAREA_ASSOCIATIONS_REACHED: Fact(
        InsufficientStorageError, _N, "the volume has its shadow storage already", "resize that one"
    ),
    # Writers.
    _H.VSS_E_UNEXPECTED_WRITER_ERROR: Fact(SnapshotError, _1, "a writer failed unexpectedly", _WRITERS),
    _H.VSS_E_WRITER_INFRASTRUCTURE: Fact(
        SnapshotError, _1, "writers cannot be reached", "check that the service COM+ Event System runs"
    ),
    _H.VSS_E_CORRUPT_XML_DOCUMENT: Fact(SnapshotError, _N, "a writer's document is corrupt", _WRITERS),
    _H.VSS_E_INVALID_XML_DOCUMENT: Fact(SnapshotError, _N, "a writer's document is not valid", _WRITERS),
    _H.VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT: Fact(
        WriterFailedError, _N, "the writer's data lies on volumes that are not in the set", "add them"
    ),
    _H.VSS_E_WRITERERROR_OUTOFRESOURCES: Fact(
        WriterFailedError, _F, "the writer ran out of memory or handles", "end other programs"
    ),
    _H.VSS_E_WRITERERROR_TIMEOUT: Fact(
        WriterFailedError, _F, "the writer was not done in time (60 s)", _LOAD
    ),
    _H.VSS_E_WRITERERROR_RETRYABLE: Fact(
        WriterFailedError, _F, "the writer failed for the moment", "restart its service if this goes on"
    ),
    _H.VSS_E_WRITERERROR_NONRETRYABLE: Fact(
        WriterFailedError, _N, "the writer failed", _WRITERS + "; exclude it if its data does not matter"
    ),
    _H.VSS_E_WRITERERROR_RECOVERY_FAILED: Fact(
        WriterFailedError, _N, "the writer could not recover its data in the shadow copy", _WRITERS
    ),
    _H.VSS_E_WRITERERROR_PARTIAL_FAILURE: Fact(
        WriterFailedError, _N, "the writer failed for some of its components", _WRITERS
    ),
    # After the instant.
    _H.VSS_E_AUTORECOVERY_FAILED: Fact(
        SnapshotError, _1, "the shadow copy could not be recovered", "pass auto_recovery=False"
    ),
    _H.VSS_E_REBOOT_REQUIRED: Fact(SnapshotError, _U, "Windows has to be restarted first", "restart it"),
    _H.VSS_E_REVERT_VOLUME_LOST: Fact(SnapshotError, _N, "the volume that was reverted is gone", _EVENTS),
    _H.VSS_E_NO_SNAPSHOTS_IMPORTED: Fact(SnapshotError, _N, "nothing was imported", _TRANSPORT),
    _H.VSS_E_SOME_SNAPSHOTS_NOT_IMPORTED: Fact(SnapshotError, _N, "not all were imported", _TRANSPORT),
}

_UNKNOWN = Fact(SnapshotError, Retry.NEVER, "the call failed", _EVENTS)


def fact(code: int) -> Fact:
    """What an unsigned HRESULT means; something for every number."""
    try:
        return FACTS.get(HResult(code), _UNKNOWN)
    except ValueError:
        return _UNKNOWN


def error_for(code: int, call: str, what: str = "") -> SnapshotError:
    """The error to raise for a failed call.

    Args:
        code: Unsigned HRESULT.
        call: Which call or step it came from.
        what: What it was about (a volume, a writer), or "".

    Returns:
        An error whose ``retryable``, ``retry_after`` and ``retry_limit`` follow from the code.
    """
    known = fact(code)
    message = f"{what}: {known.meaning}" if what else f"{call}: {known.meaning}"
    message += f" ({name_of(code)})"
    error = known.error(message, call=call, code=code, hint=known.hint)
    if isinstance(error, ProviderUnavailableError):
        error.reasons = {"vss": known.meaning}
    if known.retry in RETRY_LIMITS:
        error.retryable = True
        error.retry_limit = RETRY_LIMITS[known.retry]
        error.retry_after = RETRY_PAUSE
    return error
