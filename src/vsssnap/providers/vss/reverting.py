"""Volumes put back to a shadow copy, and shadow copies that become volumes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from vsssnap._arguments import instance
from vsssnap._deadline import Deadline
from vsssnap._win32.constants import HardwareOptions, SnapshotAttributes
from vsssnap._win32.failures import error_for
from vsssnap._win32.hresult import HResult
from vsssnap._win32.operations import wait, watch
from vsssnap.errors import (
    CancelledError,
    ProviderUnavailableError,
    SnapshotBusyError,
    SnapshotError,
    SnapshotTimeoutError,
)
from vsssnap.providers.vss import existing, names
from vsssnap.providers.vss.copies import as_shadow_id
from vsssnap.providers.vss.journal import Journal
from vsssnap.providers.vss.management import run

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from uuid import UUID

    from vsssnap._win32.dll import System
    from vsssnap._win32.shadow_copies import ShadowCopies

__all__ = ["break_shadow_copy_set", "revert_to_shadow_copy", "wait_for_revert"]

_INSTEAD = "restore an image of it with restore_image"
_LASTING = SnapshotAttributes.VSS_VOLSNAP_ATTR_PERSISTENT
_GOES_ON = "the volume is being reverted all the same: wait_for_revert waits for it"


def revert_to_shadow_copy(
    shadow_id: str | UUID, /, *, dismount: bool = False, timeout: float = 3600.0
) -> None:
    """Put a volume back to what it was when a shadow copy was taken; everything since is lost.

    Only Windows Server does this, with lasting shadow copies, and not with the volume that it runs from.
    It cannot be stopped or undone, and goes on after a restart.

    Args:
        shadow_id: The shadow copy's own id.
        dismount: Do it though files of the volume are open; programs that have them lose them.
        timeout: Seconds to wait for the end.

    Raises:
        ProviderUnavailableError: there is no shadow copy of this id, it cannot be reverted to, or VSS is
            not here.
        SnapshotPermissionError: the process is not elevated.
        SnapshotBusyError: the volume is in use, or being reverted.
        SnapshotTimeoutError: it is not done yet, and goes on (`wait_for_revert`).
        SnapshotError: it failed.
    """
    wanted = as_shadow_id(shadow_id)
    instance(dismount, bool, "dismount")
    deadline = Deadline(timeout)
    begun: list[str] = []

    def revert(system: System) -> None:
        vss = existing.administer(system)
        try:
            copy = vss.snapshot(wanted)
            shown = existing.shown(system, copy.volume)
            if not copy.attributes & _LASTING:
                raise _told(
                    HResult.VSS_E_UNSUPPORTED_CONTEXT,
                    f"{shown}: this shadow copy ends with the program that took it",
                    "only lasting shadow copies can be reverted to: Snapshot(persistent=True)",
                )
            with _in_words(shown):
                blocked = vss.blocks_revert(copy.volume)
            if blocked:
                raise _told(
                    HResult.VSS_E_PROVIDER_VETO,
                    f"{shown}: it has data of an application that must not be reverted",
                    "see WritersBlockingRevert in the registry of VSS; " + _INSTEAD,
                )
            with _in_words(shown):
                vss.revert(wanted, force=dismount)
            begun.append(shown)
            watch(vss.revert_status(copy.volume), deadline, "QueryRevertStatus")
        finally:
            vss.release()

    try:
        run(revert, deadline, "revert a volume to a shadow copy")
    except (SnapshotTimeoutError, CancelledError) as exc:
        if begun:
            exc.add_note(_GOES_ON)
        raise


def wait_for_revert(volume: str | os.PathLike[str], /, *, timeout: float = 3600.0) -> None:
    """Wait until a volume is put back, also if another program or an earlier start of Windows began it.

    Args:
        volume: A drive or another name of a volume; nothing is waited for if it is not being reverted.
        timeout: Seconds.

    Raises:
        ProviderUnavailableError: there is no such volume, or VSS is not here.
        SnapshotPermissionError: the process is not elevated.
        SnapshotTimeoutError: it is not done yet, and goes on.
        SnapshotError: it failed.
    """
    deadline = Deadline(timeout)

    def ask(system: System) -> None:
        name = names.resolve(system, [volume])[0].volume
        vss = existing.administer(system)
        try:
            with _in_words(existing.shown(system, name)):
                operation = vss.revert_status(name)
            watch(operation, deadline, "QueryRevertStatus")
        finally:
            vss.release()

    run(ask, deadline, "wait for a volume to be reverted")


@contextmanager
def _in_words(shown: str) -> Iterator[None]:
    """Say why a volume is not reverted, in words of that."""
    try:
        yield
    except SnapshotError as exc:
        code = exc.code
        if code == HResult.E_NOTIMPL:
            why = f"{shown}: this Windows or VSS provider does not revert volumes"
            raise _told(code, why, _INSTEAD) from exc
        if code == HResult.VSS_E_VOLUME_NOT_SUPPORTED:
            why = f"{shown}: VSS does not revert this volume"
            raise _told(code, why, "Windows may run from it; " + _INSTEAD) from exc
        if code == HResult.VSS_E_VOLUME_IN_USE:
            why, hint = f"{shown}: files of the volume are open", "close them, or pass dismount=True"
            raise SnapshotBusyError(why, call=exc.call, code=code, hint=hint) from exc
        raise


def _told(code: int, why: str, hint: str) -> ProviderUnavailableError:
    return ProviderUnavailableError(why, call="RevertToSnapshot", code=code, hint=hint, reasons={"vss": why})


def break_shadow_copy_set(
    set_id: str | UUID,
    /,
    *,
    writable: bool = False,
    hidden: bool = False,
    original_identity: bool = False,
    timeout: float = 600.0,
) -> list[str]:
    r"""Make the shadow copies of a set volumes of their own, of which VSS knows nothing any more.

    Only a disk array with a VSS hardware provider can do that.

    Args:
        set_id: The id of the set.
        writable: Whether the volumes can be written.
        hidden: Whether this machine does not see them, so that another one can.
        original_identity: Give their disks the signatures that the original disks have; these must be away.
        timeout: Seconds.

    Returns:
        Their devices, ``\\?\GLOBALROOT\Device\...``, as they were called before.

    Raises:
        ProviderUnavailableError: there is no such set, it is of a software provider, or VSS is not here.
        SnapshotPermissionError: the process is not elevated.
        SnapshotTimeoutError: the provider was not done in time.
        SnapshotError: it failed.
    """
    wanted = as_shadow_id(set_id)
    flags = HardwareOptions(0)
    for name, value, flag in (
        ("writable", writable, HardwareOptions.VSS_BREAKEX_FLAG_MAKE_READ_WRITE),
        ("hidden", hidden, HardwareOptions.VSS_BREAKEX_FLAG_MASK_LUNS),
        ("original_identity", original_identity, HardwareOptions.VSS_BREAKEX_FLAG_REVERT_IDENTITY_ALL),
    ):
        instance(value, bool, name)
        flags |= flag if value else HardwareOptions(0)
    deadline = Deadline(timeout)
    devices: list[str] = []

    def break_up(system: System) -> None:
        vss = existing.administer(system)
        try:
            found = [copy.device for copy in vss.snapshots() if copy.set_id == wanted]
            _break(vss, wanted, flags, deadline)
        finally:
            vss.release()
        Journal(system).forget(wanted)
        devices.extend(found)

    run(break_up, deadline, "break a shadow copy set")
    return devices


def _break(vss: ShadowCopies, set_id: UUID, flags: HardwareOptions, deadline: Deadline) -> None:
    call = "BreakSnapshotSet"
    try:
        operation = vss.break_set(set_id, flags)
        if operation is not None:
            wait(operation, deadline, "BreakSnapshotSetEx")
    except SnapshotError as exc:
        if exc.code == HResult.VSS_E_PROVIDER_VETO:
            why = f"shadow copy set {set_id} is of a software provider"
            hint = "only those of a disk array's hardware provider are volumes of their own"
            raise ProviderUnavailableError(
                why, call=call, code=exc.code, hint=hint, reasons={"vss": why}
            ) from exc
        if exc.code == HResult.VSS_E_BREAK_REVERT_ID_FAILED:
            why = f"shadow copy set {set_id}: the disks cannot have the original signatures"
            hint = "take the original disks away from this machine first"
            raise SnapshotError(why, call=call, code=exc.code, hint=hint) from exc
        if exc.code == HResult.VSS_E_OBJECT_NOT_FOUND:
            raise error_for(exc.code, call, f"shadow copy set {set_id}") from exc
        raise
