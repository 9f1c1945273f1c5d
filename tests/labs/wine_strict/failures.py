"""Runs under the Windows Python: every way in which VSS fails, against the strict vssapi.dll beside it.

Prints what `wine_scenes` finds, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any
from uuid import UUID

from vsssnap import Consistency, Snapshot, list_snapshots, purge, vss
from vsssnap.errors import VssSnapError
from vsssnap.vss import ComponentSelection, ComponentSelector, RestoreStatus, VssOptions, WriterRestore
from wine_scenes import CALL, EVER, OPERATION, WAITING, Scene, fail, lab, late, play, take

ALL = VssOptions(components=ComponentSelection())
APPLICATION = Consistency.APPLICATION
PREPARE, FREEZE, COMPLETE, PRE_RESTORE, POST_RESTORE = range(5)

DENIED, BAD_STATE, UNEXPECTED, VETO = 0x80070005, 0x80042301, 0x80042302, 0x80042306
HOLD_WRITES, IN_PROGRESS, MEMORY_OUT = 0x80042314, 0x80042316, 0x8007000E
# Not VSS_E_INSUFFICIENT_STORAGE: that asks for shadow storage, which is a server of its own, and Wine
# leaves two handles behind whenever it finds none.
RETRYABLE, NONRETRYABLE, CONTEXT = 0x800423F3, 0x800423F4, 0x8004231B

# Scenes; the name says what happens, and the test what has to come of it.


def failing(call: str, code: int, where: int = CALL, *, times: int = 1, **arguments: Any) -> Scene:  # noqa: ANN401
    def scene() -> None:
        fail(call, code, where, times)
        take(**arguments)

    return scene


def hanging(step: str, *, deaf: int = 0, **arguments: Any) -> Scene:  # noqa: ANN401 - of Snapshot
    def scene() -> None:
        lab.LabHang(step.encode(), deaf)
        late()
        take(**arguments)

    return scene


def cancelled(step: str) -> Scene:
    def scene() -> None:
        lab.LabHang(step.encode(), 0)
        snapshot = Snapshot("C:")

        def cancel() -> None:
            while not lab.LabStuck():
                time.sleep(0.02)
            snapshot.cancel()

        threading.Thread(target=cancel, daemon=True).start()
        snapshot.create()

    return scene


def abort_fails() -> None:
    fail("AbortBackup", UNEXPECTED)
    failing("AddToSnapshotSet", MEMORY_OUT)()


def busy_for_ever() -> None:
    lab.LabBusy(1)
    late(after=3)
    take()


def writer(event: int, code: int, *, times: int = EVER, index: int = 0, **arguments: Any) -> Scene:  # noqa: ANN401
    def scene() -> str:
        lab.LabWriter(index, event, code, times)
        s = take(**arguments)
        return f"{s.consistency.name} {sorted((report.name, report.state) for report in s.writers)}"

    return scene


def body_raises() -> None:
    with Snapshot("C:", options=ALL):
        raise ZeroDivisionError


def unread() -> None:
    with Snapshot("C:", options=ALL) as s:
        assert s._held is not None
        requester = s._held.provider._requester  # type: ignore[attr-defined] # which a reader tells
        requester.unread |= set(requester.names)


def persistent(**arguments: Any) -> Scene:  # noqa: ANN401 - of Snapshot
    def scene() -> str:
        s = take(persistent=True, **arguments)
        (record,) = list_snapshots()
        assert (record.snapshot_id, record.owned, record.kept) == (s.id, True, True)
        assert purge() == [], "it is meant to stay"
        Snapshot.attach(s.id, own=True).close()
        return f"{len(list_snapshots())} left"

    return scene


def one_that_stays() -> str:
    s = take(persistent=True)
    lab.LabKeep(1)
    try:
        Snapshot.attach(s.id, own=True).close()
    except VssSnapError as exc:
        lab.LabKeep(0)
        Snapshot.attach(s.id, own=True).close()
        return f"{exc.code:#x}"
    return "deleted"


CHILD = """
import time
from vsssnap import Snapshot
from wine_scenes import prepare
prepare()
with Snapshot("C:", persistent=True) as s:
    print(s.id, *(volume.device for volume in s.volumes.values()), flush=True)
    time.sleep(100)
"""


def killed() -> list[object]:
    """What a process left that was ended from outside."""
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            set_id, volume = child.stdout.readline().split()
            lab.LabLeave(UUID(set_id).bytes_le, volume)  # in this process: each has shadow copies of its own
            lab.LabLeave(UUID(int=7).bytes_le, volume)
            records = {one.snapshot_id: (one.owned, one.owner_alive) for one in list_snapshots()}
            found: list[object] = [records[set_id], records[str(UUID(int=7))], len(purge())]
        finally:
            child.kill()
    found.append([one.snapshot_id == set_id for one in purge()])
    found.append([one.snapshot_id for one in list_snapshots()])
    vss.delete_shadow_copy(vss.list_shadow_copies()[0].id)
    return found


def exposed() -> list[object]:
    s = take(persistent=True)
    (copy,) = vss.list_shadow_copies()
    found = [copy.set_id == s.id, copy.persistent, vss.expose_shadow_copy(copy.id, at="X:\\")]
    found.append(vss.list_shadow_copies()[0].exposed)
    vss.unexpose_shadow_copy(copy.id)
    found.append(vss.expose_shadow_copy(copy.id, share="old \u00e4", folder="\\data"))
    vss.delete_shadow_copy(copy.id)
    return found


def components() -> list[object]:
    return [[one.writer, one.path, one.selectable, one.files, one.volumes] for one in vss.list_components()]


def chosen() -> None:
    sql = ComponentSelector(writer="lab writer", path="up\\needy")
    take(options=VssOptions(components=ComponentSelection(include=(sql,))))


def restore(*faults: tuple[Any, ...], event: int = -1, **arguments: Any) -> Scene:  # noqa: ANN401
    def scene() -> list[object]:
        for fault in faults:
            fail(*fault)
        if event >= 0:
            lab.LabWriter(0, event, NONRETRYABLE, EVER)
        with WriterRestore("<\u00fc \U0001f400/>", **arguments) as it:
            it.select(*it.components, options="m\u00f6ve")
            it.begin()
            it.report(it.components[0], RestoreStatus.ALL)
        return [[one.path, one.succeeded, one.running] for one in it.components]

    return scene


def restore_hangs() -> None:
    lab.LabHang(b"PreRestore", 0)
    late()
    restore()()


SCENES: dict[str, Scene] = {"all is well": take, "components": lambda: take(options=ALL)}
for place in (CALL, OPERATION, WAITING):
    SCENES[f"GatherWriterMetadata {place}"] = failing("GatherWriterMetadata", DENIED, place)
    SCENES[f"PrepareForBackup {place}"] = failing("PrepareForBackup", MEMORY_OUT, place)
    SCENES[f"GatherWriterStatus {place}"] = failing("GatherWriterStatus", MEMORY_OUT, place)
    SCENES[f"DoSnapshotSet {place}"] = failing("DoSnapshotSet", MEMORY_OUT, place)
    SCENES[f"BackupComplete {place}"] = failing("BackupComplete", MEMORY_OUT, place)
for name in ("CreateVssBackupComponents", "InitializeForBackup", "SetBackupState", "GetWriterMetadataCount"):
    SCENES[name] = failing(name, DENIED)
for name in (
    "IsVolumeSupported",
    "AddToSnapshotSet",
    "GetWriterStatusCount",
    "GetSnapshotProperties",
    "SaveAsXML",
):
    SCENES[name] = failing(name, MEMORY_OUT)
SCENES |= {
    "SetContext": failing("SetContext", CONTEXT, options=VssOptions(writers=False)),
    "AddComponent": failing("AddComponent", DENIED, options=ALL),
    "SetBackupSucceeded": failing("SetBackupSucceeded", UNEXPECTED, options=ALL),
    "StartSnapshotSet": failing("StartSnapshotSet", BAD_STATE),
    "busy twice": failing("StartSnapshotSet", IN_PROGRESS, times=2),
    "busy for ever": busy_for_ever,
    "AbortBackup": abort_fails,
    "a writer's document": failing("GetWriterMetadata", UNEXPECTED),
    "a writer's text": failing("IVssExamineWriterMetadata::SaveAsXML", UNEXPECTED),
    "a component's facts": failing("GetComponentInfo", UNEXPECTED, options=ALL),
    "a component's files": failing("GetFilespec", UNEXPECTED, options=ALL),
    "a writer's state": failing("GetWriterStatusEx", UNEXPECTED, times=EVER),
    "hold writes once": failing("DoSnapshotSet", HOLD_WRITES, OPERATION),
    "hold writes for ever": failing("DoSnapshotSet", HOLD_WRITES, OPERATION, times=EVER),
    "veto once": failing("DoSnapshotSet", VETO),
    "service hiccups": failing("InitializeForBackup", UNEXPECTED, times=EVER),
    "writer fails at prepare": writer(PREPARE, NONRETRYABLE, require=APPLICATION),
    "writer fails at freeze": writer(FREEZE, NONRETRYABLE, require=APPLICATION),
    "writer is reported": writer(FREEZE, NONRETRYABLE),
    "writer passes": writer(FREEZE, RETRYABLE, times=2, require=APPLICATION),
    "writer never passes": writer(FREEZE, RETRYABLE, require=APPLICATION),
    "writer fails at the end": writer(COMPLETE, NONRETRYABLE, require=APPLICATION),
    "another writer fails": writer(FREEZE, NONRETRYABLE, index=1, require=APPLICATION, options=ALL),
    "without writers": lambda: take(options=VssOptions(writers=False)),
    "gather hangs": hanging("GatherWriterMetadata"),
    "prepare hangs": hanging("PrepareForBackup"),
    "status hangs": hanging("GatherWriterStatus"),
    "instant hangs": hanging("DoSnapshotSet"),
    "instant ends late": hanging("DoSnapshotSet", deaf=600),
    "instant of a lasting one ends late": hanging("DoSnapshotSet", deaf=300, persistent=True),
    "gather is cancelled": cancelled("GatherWriterMetadata"),
    "instant is cancelled": cancelled("DoSnapshotSet"),
    "body raises": body_raises,
    "something cannot be read": unread,
    "a lasting one": persistent(),
    "a lasting one without writers": persistent(options=VssOptions(writers=False)),
    "a lasting one not taken whole": failing("SaveAsXML", MEMORY_OUT, persistent=True),
    "one that stays": one_that_stays,
    "exposed": exposed,
    "killed": killed,
    "list": components,
    "chosen": chosen,
    "restore": restore(),
    "restore hangs": restore_hangs,
    "restore refused": restore(event=PRE_RESTORE),
    "restore ends badly": restore(event=POST_RESTORE),
}
for name in (
    "InitializeForRestore",
    "GetWriterComponentsCount",
    "GetWriterComponents",
    "GetWriterInfo",
    "GetComponentName",
    "SetSelectedForRestore",
    "SetRestoreOptions",
    "PreRestore",
    "SetFileRestoreStatus",
    "PostRestore",
):
    SCENES[f"restore {name}"] = restore((name, DENIED))
for name in ("PreRestore", "PostRestore"):
    SCENES[f"restore {name} 1"] = restore((name, DENIED, OPERATION))


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(play(SCENES)))
