"""What happens to a volume when the storage of its shadow copies runs out; Windows Server alone has it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap._deadline import Deadline
from vsssnap._win32 import constants
from vsssnap._win32.constants import ProtectionFault
from vsssnap._win32.hresult import name_of
from vsssnap._win32.management import ShadowStorageManager
from vsssnap.errors import UsageError
from vsssnap.providers.vss import names
from vsssnap.providers.vss.management import run

if TYPE_CHECKING:
    import os

    from vsssnap._win32.dll import System

__all__ = [
    "ProtectionLevel",
    "VolumeProtection",
    "clear_protection_fault",
    "delete_unused_shadow_storage",
    "least_shadow_storage",
    "protect_volume",
    "volume_protection",
]


class ProtectionLevel(enum.Enum):
    """What is kept going when shadow storage runs out (VSS_PROTECTION_LEVEL)."""

    VOLUME = constants.ProtectionLevel.VSS_PROTECTION_LEVEL_ORIGINAL_VOLUME
    """The volume; its shadow copies may be deleted.  The default."""
    SHADOW_COPIES = constants.ProtectionLevel.VSS_PROTECTION_LEVEL_SNAPSHOT
    """The shadow copies; the volume is taken offline instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeProtection:
    """How a volume is protected.

    Attributes:
        level: What is kept going.
        offline: Whether the volume was taken offline for that.
        fault: Why, in the system's word (``"DIFF_AREA_FULL"``), or "".
        status: The HRESULT of what failed, in the system's word, or "".
        unused_storage: Whether shadow storage that belongs to no volume any more lies on it.
    """

    level: ProtectionLevel
    offline: bool
    fault: str
    status: str
    unused_storage: bool


def volume_protection(volume: str | os.PathLike[str], /, *, timeout: float = 60.0) -> VolumeProtection:
    """How a volume is protected from running out of shadow storage.

    Args:
        volume: A drive or another name of a volume.
        timeout: Seconds.

    Raises:
        ProviderUnavailableError: there is no such volume, or this is no Windows Server.
        SnapshotPermissionError: the process is not elevated.
    """
    found: list[VolumeProtection] = []

    def ask(manager: ShadowStorageManager, name: str) -> None:
        known = manager.protection(name)
        fault = known.fault.name if isinstance(known.fault, ProtectionFault) else str(known.fault)
        found.append(
            VolumeProtection(
                level=ProtectionLevel(known.level),
                offline=known.offline,
                fault=fault.removeprefix("VSS_PROTECTION_FAULT_") if known.fault else "",
                status=name_of(known.status) if known.status else "",
                unused_storage=known.unused_storage,
            )
        )

    _manage(ask, volume, timeout, "ask how a volume is protected")
    return found[0]


def protect_volume(
    volume: str | os.PathLike[str], /, level: ProtectionLevel, *, timeout: float = 60.0
) -> None:
    """Decide what is kept going when the shadow storage of a volume runs out.

    SHADOW_COPIES needs shadow storage that was made for the volume (`resize_shadow_storage`).  A volume
    that is offline for its shadow copies' sake is dismounted when it goes back to VOLUME.

    Args:
        volume: A drive or another name of a volume.
        level: What.
        timeout: Seconds.

    Raises:
        UsageError: ``level`` is no `ProtectionLevel`.
        ProviderUnavailableError: there is no such volume, or this is no Windows Server.
        SnapshotPermissionError: the process is not elevated.
    """
    if not isinstance(level, ProtectionLevel):
        raise UsageError(f"level is {level!r}", hint="pass a ProtectionLevel")
    _manage(lambda manager, name: manager.protect(name, level.value), volume, timeout, "protect a volume")


def clear_protection_fault(volume: str | os.PathLike[str], /, *, timeout: float = 60.0) -> None:
    """Put a volume back to use that was taken offline for its shadow copies' sake; it is dismounted.

    Args:
        volume: A drive or another name of a volume.
        timeout: Seconds.

    Raises:
        ProviderUnavailableError: there is no such volume, or this is no Windows Server.
        SnapshotPermissionError: the process is not elevated.
    """
    _manage(lambda manager, name: manager.clear_fault(name), volume, timeout, "clear a protection fault")


def delete_unused_shadow_storage(storage: str | os.PathLike[str], /, *, timeout: float = 60.0) -> None:
    """Delete shadow storage that lies on a volume and belongs to none any more.

    Args:
        storage: The volume that keeps it.
        timeout: Seconds.

    Raises:
        ProviderUnavailableError: there is no such volume, or this is no Windows Server.
        SnapshotPermissionError: the process is not elevated.
    """
    _manage(lambda manager, name: manager.delete_unused(name), storage, timeout, "delete shadow storage")


def least_shadow_storage(*, timeout: float = 60.0) -> int:
    """The least that `resize_shadow_storage` takes on this Windows, in bytes.

    Raises:
        ProviderUnavailableError: VSS is not here, or does not tell.
        SnapshotPermissionError: the process is not elevated.
    """
    found: list[int] = []
    _manage(
        lambda manager, _: found.append(manager.least()), None, timeout, "ask for the least shadow storage"
    )
    return found[0]


def _manage(
    action: Callable[[ShadowStorageManager, str], None],
    volume: str | os.PathLike[str] | None,
    timeout: float,
    step: str,
) -> None:
    def act(system: System) -> None:
        name = "" if volume is None else names.resolve(system, [volume])[0].volume
        manager = ShadowStorageManager(system)
        try:
            action(manager, name)
        finally:
            manager.release()

    run(act, Deadline(timeout), step)
