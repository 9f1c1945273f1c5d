"""Runs under the Windows Python: the functions that look after VSS, against the strict vssapi.dll beside it.

Prints what `wine_scenes` finds, as JSON.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
from typing import Any

from vsssnap import Snapshot, vss
from vsssnap._win32 import com, dll
from vsssnap.errors import VssSnapError
from wine_scenes import EVER, OPERATION, Scene, fail, lab, late, play, take

DENIED, STORAGE_FULL = 0x80070005, 0x8004231F
FULL_FAULT = 8  # VSS_PROTECTION_FAULT_DIFF_AREA_FULL
MIB = 1 << 20
SHADOW_COPIES = vss.ProtectionLevel.SHADOW_COPIES


def facts(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any dataclass of the library
    known = dataclasses.asdict(record)
    return {name: value.name if isinstance(value, enum.Enum) else value for name, value in known.items()}


def storage() -> list[object]:
    found: list[object] = [[facts(one) for one in vss.shadow_storage()]]
    vss.resize_shadow_storage("C:", maximum=400 * MIB, storage="Z:")
    vss.resize_shadow_storage("Z:\\", maximum=None)
    found.append([facts(one) for one in vss.shadow_storage()])
    found.append([facts(one) for one in vss.shadow_storage("c:\\")])
    vss.resize_shadow_storage("Z:", maximum=(5 << 40) - 1)
    found.append([facts(one) for one in vss.shadow_storage("Z:")])
    return found


def protection() -> list[object]:
    found: list[object] = [vss.least_shadow_storage(), facts(vss.volume_protection("C:"))]
    vss.protect_volume("C:", SHADOW_COPIES)
    lab.LabProtection(0, FULL_FAULT, 1)
    found.append(facts(vss.volume_protection("C:")))
    vss.clear_protection_fault("C:")
    vss.delete_unused_shadow_storage("C:")
    found.append(facts(vss.volume_protection("C:")))
    lab.LabProtection(0, FULL_FAULT, 0)
    vss.protect_volume("C:", vss.ProtectionLevel.VOLUME)
    found += [facts(vss.volume_protection("C:")), facts(vss.volume_protection("Z:"))]
    return found


def no_server() -> list[object]:
    lab.LabServer(0)
    vss.resize_shadow_storage("C:", maximum=400 * MIB)
    found: list[object] = [vss.shadow_storage("C:")[0].maximum, vss.least_shadow_storage()]
    for ask in (
        vss.volume_protection,
        vss.clear_protection_fault,
        vss.delete_unused_shadow_storage,
        lambda name: vss.protect_volume(name, SHADOW_COPIES),
    ):
        try:
            ask("C:")
        except VssSnapError as exc:
            found.append([type(exc).__name__, getattr(exc, "hint", "")])
    return found


def full() -> None:
    vss.resize_shadow_storage("C:", maximum=400 * MIB)
    fail("DoSnapshotSet", STORAGE_FULL, OPERATION)
    take()


def old_storage() -> list[object]:
    lab.LabMakes(0)
    vss.resize_shadow_storage("C:", maximum=400 * MIB)
    vss.resize_shadow_storage("C:", maximum=500 * MIB) if vss.shadow_storage("C:") else None
    return [facts(one) for one in vss.shadow_storage()]


def continued() -> list[str]:
    selector = vss.ComponentSelector(writer="Lab Writer", options="m\u00f6ve")
    selection = vss.ComponentSelection(
        kind=vss.BackupKind.INCREMENTAL, based_on="<before/>", include=(selector,)
    )
    with Snapshot("C:", options=vss.VssOptions(components=selection)) as s:
        assert s._held is not None
        choice = s._held.provider._requester.choice  # type: ignore[attr-defined] # which makes the metadata
    return [note for note in choice.notes if "stamp" in note or "know" in note]


def placed() -> list[dict[str, Any]]:
    files = vss.FileSet(path="%SystemDrive%\\lab", spec="*.mdf", recursive=True)
    with vss.WriterRestore("<saved/>") as it:
        part, whole = it.components
        it.select(part, more=True)
        it.redirect(part, files, to="D:\\new")
        it.select_part(whole, "below\\it")
        it.begin()
        places = [facts(it.placement(one)) for one in (part, whole)]
        it.restored_elsewhere(part, files, to="E:\\else")
        it.report(part, vss.RestoreStatus.ALL)
    return places


def reverted(*, in_use: bool = False, blocks: bool = False, dismount: bool = False) -> Scene:
    def scene() -> None:
        take("Z:", persistent=True)
        lab.LabInUse(in_use)
        lab.LabBlocks(blocks)
        (copy,) = vss.list_shadow_copies()
        try:
            vss.revert_to_shadow_copy(copy.id, dismount=dismount)
            vss.wait_for_revert("Z:")
        finally:
            vss.delete_shadow_copy(copy.id)

    return scene


def revert_hangs() -> str:
    lab.LabHang(b"QueryRevertStatus", 0)
    late()
    take("Z:", persistent=True)
    (copy,) = vss.list_shadow_copies()
    try:
        vss.revert_to_shadow_copy(copy.id)
    except VssSnapError as exc:
        return f"{type(exc).__name__} {exc.__notes__[0]}"
    finally:
        vss.delete_shadow_copy(copy.id)
    return "it ended"


def broken() -> list[object]:
    s = take(persistent=True)
    devices = vss.break_shadow_copy_set(s.id, writable=True)
    return [devices, len(vss.list_shadow_copies())]


def document() -> list[object]:
    found = facts(vss.read_writer_document("<\u00fc \U0001f400/>"))
    return [{**found, "components": [one["path"] for one in found["components"]]}]


def a_lasting_one(name: str) -> Scene:
    """A call about a shadow copy fails; a second one does not."""

    def scene() -> str:
        take(persistent=True)
        code = None
        fail(name, DENIED)
        try:
            act(vss.list_shadow_copies()[0].id)
        except VssSnapError as exc:
            code = exc.code
        for copy in vss.list_shadow_copies():
            act(copy.id)
        return f"{code or 0:#x}, {len(vss.list_shadow_copies())} left"

    def act(copy: str) -> None:
        vss.expose_shadow_copy(copy, at="X:\\")
        vss.unexpose_shadow_copy(copy)
        vss.delete_shadow_copy(copy)

    return scene


def failing(name: str, ask: Scene, times: int = EVER) -> Scene:
    def scene() -> object:
        vss.resize_shadow_storage("C:", maximum=400 * MIB)
        fail(name, DENIED, times=times)
        return ask()

    return scene


SCENES: dict[str, Scene] = {
    "writers": lambda: [facts(one) for one in vss.list_writers()],
    "providers": lambda: [facts(one) for one in vss.list_providers()],
    "storage": storage,
    "protection": protection,
    "no server": no_server,
    "old storage": old_storage,
    "continued": continued,
    "placed": placed,
    "reverted": reverted(),
    "reverted, in use": reverted(in_use=True),
    "reverted, dismounted": reverted(in_use=True, dismount=True),
    "reverted, blocked": reverted(blocks=True),
    "revert hangs": revert_hangs,
    "broken": broken,
    "document": document,
    "too little": lambda: vss.resize_shadow_storage("C:", maximum=320 * MIB - 1),
    "too much": lambda: vss.resize_shadow_storage("C:", maximum=(5 << 40) + 1),
    "full": full,
    "providers: CoCreateInstance": failing("CoCreateInstance", vss.list_providers),
    "providers: QueryProviders": failing("QueryProviders", vss.list_providers),
    "providers: Next": failing("Next", vss.list_providers),
    "storage: CoCreateInstance": failing("CoCreateInstance", vss.shadow_storage),
    "storage: GetProviderMgmtInterface": failing("GetProviderMgmtInterface", vss.shadow_storage),
    "storage: QueryDiffAreas of all": failing("QueryDiffAreasForVolume", vss.shadow_storage),
    "storage: Next": failing("Next", vss.shadow_storage),
    "storage: QueryDiffAreas": failing("QueryDiffAreasForVolume", lambda: vss.shadow_storage("C:")),
    "resize": failing("ChangeDiffAreaMaximumSizeEx", lambda: vss.resize_shadow_storage("C:", maximum=None)),
    "least": failing("GetMinDiffAreaSize", vss.least_shadow_storage),
    "ask for protection": failing("GetVolumeProtectLevel", lambda: vss.volume_protection("C:")),
    "protect": failing("SetVolumeProtectLevel", lambda: vss.protect_volume("C:", SHADOW_COPIES)),
    "clear": failing("ClearVolumeProtectFault", lambda: vss.clear_protection_fault("C:")),
    "delete unused": failing("DeleteUnusedDiffAreas", lambda: vss.delete_unused_shadow_storage("C:")),
}
for name in ("Query", "Next", "ExposeSnapshot", "UnexposeSnapshot", "DeleteSnapshots"):
    SCENES[f"shadow copies: {name}"] = a_lasting_one(name)


def main() -> dict[str, object]:
    system = dll.current()
    assert system is not None, "this is Windows"
    com.enter_apartment(system)  # as long as one thread is in it, what is registered there stays
    code = lab.LabManage()
    assert not code, code
    return play(SCENES)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main()))
