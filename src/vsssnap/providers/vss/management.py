"""Writers, VSS providers and shadow storage of this machine, for people and programs that look after it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap._deadline import Deadline
from vsssnap._units import whole
from vsssnap._win32 import dll, targets
from vsssnap._win32.constants import VSS_ASSOC_NO_MAX_SPACE
from vsssnap._win32.failures import error_for
from vsssnap._win32.handles import WindowsCallError
from vsssnap._win32.hresult import HResult
from vsssnap._win32.management import ShadowStorageManager
from vsssnap._win32.management import providers as registered
from vsssnap._win32.operations import wait
from vsssnap.errors import ProviderUnavailableError, SnapshotError
from vsssnap.providers.vss import names, writers
from vsssnap.providers.vss.gathering import gathered
from vsssnap.providers.vss.worker import run_once

if TYPE_CHECKING:
    import os

    from vsssnap._win32.dll import System
    from vsssnap._win32.management import DiffArea
    from vsssnap.metadata import WriterReport

__all__ = [
    "InstalledProvider",
    "ShadowStorage",
    "list_providers",
    "list_writers",
    "resize_shadow_storage",
    "shadow_storage",
]


_log = logging.getLogger("vsssnap.vss")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledProvider:
    """A VSS provider of this machine.

    Attributes:
        id: What ``VssOptions(vss_provider=)`` takes.
        name: Its name.
        kind: ``"system"``, ``"software"``, ``"hardware"`` or ``"fileshare"``.
        version: Its version.
    """

    id: str
    name: str
    kind: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowStorage:
    """Where the data of shadow copies of a volume are kept.

    Attributes:
        volume: The volume that has shadow copies, by where it is mounted.
        storage: The volume that keeps their data, likewise.
        maximum: Bytes that they may use, or None for no limit.
        allocated: Bytes set aside.
        used: Bytes of these in use.
    """

    volume: str
    storage: str
    maximum: int | None
    allocated: int
    used: int


def list_writers(*, timeout: float = 300.0) -> list[WriterReport]:
    """The VSS writers of this machine and how they are.

    Args:
        timeout: Seconds for all of them.

    Raises:
        ProviderUnavailableError: VSS is not here.
        SnapshotPermissionError: the process is not elevated.
        SnapshotTimeoutError: a writer does not answer.
    """
    deadline = Deadline(timeout)
    found: list[WriterReport] = []

    def ask(system: System) -> None:
        with gathered(system, deadline) as vss:
            wait(vss.gather_writer_status(), deadline, "GatherWriterStatus")
            found.extend(map(writers.report, vss.writer_status()))

    run(ask, deadline, "list VSS writers")
    return sorted(found, key=lambda report: report.name.casefold())


def list_providers(*, timeout: float = 60.0) -> list[InstalledProvider]:
    """The VSS providers of this machine, which are what makes shadow copies.

    Raises:
        ProviderUnavailableError: VSS is not here.
        SnapshotPermissionError: the process is not elevated.
    """
    found: list[InstalledProvider] = []

    def ask(system: System) -> None:
        for item in registered(system):
            kind = item.kind.name.removeprefix("VSS_PROV_").lower()
            found.append(InstalledProvider(id=str(item.id), name=item.name, kind=kind, version=item.version))

    run(ask, Deadline(timeout), "list VSS providers")
    return found


def shadow_storage(
    volume: str | os.PathLike[str] | None = None, /, *, timeout: float = 60.0
) -> list[ShadowStorage]:
    """The shadow storage of a volume, or of all.

    Args:
        volume: A drive or another name of a volume; None for all volumes.
        timeout: Seconds.

    Raises:
        ProviderUnavailableError: there is no such volume, or VSS is not here.
        SnapshotPermissionError: the process is not elevated.
    """
    found: list[ShadowStorage] = []

    def ask(system: System) -> None:
        wanted = None if volume is None else names.resolve(system, [volume])[0].volume
        manager = ShadowStorageManager(system)
        try:
            areas = _everywhere(system, manager) if wanted is None else manager.areas(wanted)
            found.extend(_described(system, area) for area in areas)
        finally:
            manager.release()

    run(ask, Deadline(timeout), "ask for shadow storage")
    return found


def resize_shadow_storage(
    volume: str | os.PathLike[str],
    /,
    *,
    maximum: int | None,
    storage: str | os.PathLike[str] | None = None,
    timeout: float = 60.0,
) -> None:
    """Limit the shadow storage of a volume, or make it; shadow copies that no longer fit are deleted.

    Args:
        volume: The volume that has, or will have, shadow copies.
        maximum: Bytes, at least 320 MiB on most versions of Windows; None for no limit.
        storage: The volume that keeps the data; by default the one that does now, or the volume itself.
        timeout: Seconds.

    Raises:
        UsageError: ``maximum`` is no positive whole number.
        InsufficientStorageError: there is not so much room, it is too little for VSS, or the volume has
            its shadow storage elsewhere already.
        ProviderUnavailableError: there is no such volume, it cannot keep shadow storage, or VSS is not here.
        SnapshotPermissionError: the process is not elevated.
    """
    most = VSS_ASSOC_NO_MAX_SPACE if maximum is None else whole(maximum, "maximum", least=1)

    def change(system: System) -> None:
        wanted = names.resolve(system, [volume])[0].volume
        place = None if storage is None else names.resolve(system, [storage])[0].volume
        manager = ShadowStorageManager(system)
        try:
            there = [area.storage for area in manager.areas(wanted)]
            if there and place is not None and place.casefold() != there[0].casefold():
                # VSS would say of this that something is not found.
                known = f"{_mounted(system, wanted)} has shadow storage on {_mounted(system, there[0])}"
                code = HResult.VSS_E_MAXIMUM_DIFFAREA_ASSOCIATIONS_REACHED
                raise error_for(code, "ChangeDiffAreaMaximumSizeEx", known)
            manager.resize(wanted, place or (there or [wanted])[0], most)
        finally:
            manager.release()

    run(change, Deadline(timeout), "resize shadow storage")


def _everywhere(system: System, manager: ShadowStorageManager) -> list[DiffArea]:
    """The shadow storage of all volumes; what cannot have any is passed by.

    VSS has a list of its own, which is reserved for Windows
    (IVssSnapshotMgmt::QueryVolumesSupportedForSnapshots).
    """
    try:
        paths = targets.volumes(system)
    except WindowsCallError as exc:
        why = f"the volumes of this machine cannot be listed: {exc}"
        raise SnapshotError(why, call=exc.call, code=exc.code, hint="name one") from exc
    found: list[DiffArea] = []
    refused: list[SnapshotError] = []
    for path in paths:
        try:
            found += manager.areas(path)
        except SnapshotError as exc:
            if exc.call != "QueryDiffAreasForVolume":
                raise
            _log.info("shadow storage of %s: %s", path, exc)
            refused.append(exc)
    if refused and len(refused) == len(paths):
        raise refused[0]
    return found


def _described(system: System, area: DiffArea) -> ShadowStorage:
    return ShadowStorage(
        volume=_mounted(system, area.volume),
        storage=_mounted(system, area.storage),
        maximum=area.maximum,
        allocated=area.allocated,
        used=area.used,
    )


def _mounted(system: System, volume: str) -> str:
    return next(iter(names.mounted(system, volume)), volume)


def current_system(step: str) -> System:
    """The libraries of this Windows.

    Raises:
        ProviderUnavailableError: this is none.
    """
    system = dll.current()
    if system is None:
        raise ProviderUnavailableError(
            f"cannot {step}",
            reasons={"vss": "the Volume Shadow Copy Service is a part of Windows"},
            hint="run it on Windows",
        )
    return system


def run(ask: Callable[[System], None], deadline: Deadline, step: str) -> None:
    """Run something on a thread in the multithreaded apartment."""
    system = current_system(step)
    run_once(system, lambda: ask(system), deadline, step)
