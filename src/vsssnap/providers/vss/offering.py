"""Whether VSS can be used here, and what it can copy."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from vsssnap._deadline import Deadline
from vsssnap._win32 import privileges, volumes
from vsssnap._win32.backup_components import BackupComponents
from vsssnap._win32.failures import error_for
from vsssnap._win32.handles import WindowsCallError
from vsssnap._win32.hresult import HResult
from vsssnap.consistency import Consistency
from vsssnap.errors import ProviderUnavailableError, SnapshotError
from vsssnap.providers.base import Offer
from vsssnap.providers.vss import existing, names
from vsssnap.providers.vss.options import ComSecurity, VssOptions
from vsssnap.providers.vss.worker import finish, start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vsssnap._win32.dll import System
    from vsssnap.providers.base import SnapshotRequest

_log = logging.getLogger("vsssnap.vss")

UNELEVATED: Final = "this process has no administrator's token: start it elevated (Run as administrator)"
_ASK_BUDGET = 30.0  # seconds
_SURE: Final = frozenset({"NTFS", "ReFS"})  # what VSS is made for: it need not be asked


def unusable(system: System) -> str:
    """Why this process cannot use VSS, or ""."""
    try:
        if privileges.is_wow64(system):
            return "a 32-bit Python cannot use VSS on a 64-bit Windows: install the 64-bit one"
        problem = privileges.service_problem(system, "VSS")
    except WindowsCallError as exc:
        _log.info("cannot ask for the service: %s", exc)
        return ""  # creating the snapshot will tell
    if problem:
        remedy = ": sc config VSS start= demand" if "disabled" in problem else ""
        return f"the service Volume Shadow Copy {problem}{remedy}"
    return ""


def is_elevated(system: System) -> bool:
    """Whether the process is an administrator's, as far as Windows says."""
    try:
        return privileges.is_elevated(system)
    except WindowsCallError as exc:
        _log.info("cannot ask for elevation: %s", exc)
        return True  # creating the snapshot will tell


def options_of(request: SnapshotRequest) -> VssOptions:
    """What else is asked for."""
    return request.options if isinstance(request.options, VssOptions) else VssOptions()


def offer(system: System, request: SnapshotRequest) -> Offer:
    """See `Provider.probe`."""
    if not request.volumes:
        return Offer(None, "no volume is named")
    options = options_of(request)
    if not options.allow_unelevated and not is_elevated(system):
        return Offer(None, UNELEVATED, denied=True)
    try:
        found = names.resolve(system, request.volumes)
    except ProviderUnavailableError as exc:
        return Offer(None, f"{exc.reasons['vss']}: {exc.hint}")
    refused = refusals(system, [one.volume for one in found], options)
    if refused:
        shown = existing.shown(system, refused[0])
        error = error_for(HResult.VSS_E_VOLUME_NOT_SUPPORTED, "IsVolumeSupported", shown)
        return Offer(None, f"{error.message}: {error.hint}")
    if options.writers:
        return Offer(Consistency.APPLICATION)
    return Offer(Consistency.FILESYSTEM, "writers=False leaves applications out")


def refusals(system: System, asked: Sequence[str], options: object) -> list[str]:
    """Which of some volumes VSS does not copy, by their GUID paths; none if it cannot be asked."""
    given = options if isinstance(options, VssOptions) else VssOptions()
    doubtful = [name for name in asked if volumes.filesystem(system, name) not in _SURE]
    found: list[str] = []

    def ask() -> None:
        vss = BackupComponents(system)
        try:
            vss.initialize_for_backup()
            provider = given.provider_id()
            found.extend(name for name in doubtful if not vss.is_volume_supported(name, provider))
        finally:
            vss.release()

    if not doubtful:
        return []
    step = "ask whether VSS can copy a volume"
    try:
        worker = start(system, secure=given.com_security is not ComSecurity.NEVER)
        try:
            worker.call(ask, Deadline(_ASK_BUDGET), step)
        finally:
            finish(worker)
    except SnapshotError as exc:
        _log.info("%s: %s", step, exc)
        return []  # creating the snapshot will tell
    return found
