"""Runs under the Windows Python: the binding, call by call, against the vssapi.dll beside it.

Prints what Python got as JSON; the library writes down what it got.
"""

from __future__ import annotations

import json
import sys
from uuid import UUID

from vsssnap._deadline import Deadline
from vsssnap._win32 import com, dll, privileges, volumes
from vsssnap._win32.backup_components import BackupComponents
from vsssnap._win32.constants import BackupType, SnapshotAttributes
from vsssnap._win32.guids import SYSTEM_PROVIDER
from vsssnap._win32.operations import wait
from vsssnap.errors import SnapshotError


def main() -> dict[str, object]:
    system = dll.current()
    assert system is not None, "this is Windows"
    deadline = Deadline(30)
    found: dict[str, object] = {}
    com.enter_apartment(system)
    found["security"] = [com.initialize_security(system), com.initialize_security(system)]
    found["wow64"] = privileges.is_wow64(system)
    found["elevated"] = privileges.is_elevated(system)
    found["privilege"] = privileges.enable(system, "SeBackupPrivilege")
    found["no service"] = privileges.service_problem(system, "NoSuchService")
    found["rpc service"] = privileges.service_problem(system, "RpcSs")
    volume = volumes.volume_guid_path(system, "c:")
    found["volume"] = volume
    found["mounted"] = volumes.mount_points(system, volume)
    vss = BackupComponents(system)
    vss.initialize_for_backup()
    vss.set_context(SnapshotAttributes.VSS_VOLSNAP_ATTR_NO_AUTORECOVERY | 0x80000000)
    vss.set_backup_state(select_components=False, bootable=True, kind=BackupType.VSS_BT_COPY)
    vss.disable_writer_classes(
        [UUID("01234567-89ab-cdef-0123-456789abcdef"), UUID("fedcba98-7654-3210-fedc-ba9876543210")]
    )
    wait(vss.gather_writer_metadata(), deadline, "GatherWriterMetadata")
    found["metadata"] = [
        [item.name, str(item.writer_id), str(item.instance_id), item.document]
        for item in vss.writer_metadata()
    ]
    found["set"] = str(vss.start_snapshot_set())
    found["supported"] = vss.is_volume_supported("X:\\", SYSTEM_PROVIDER)
    copy = vss.add_to_snapshot_set("X:\\m\u00e4p\\", SYSTEM_PROVIDER)
    found["copy"] = str(copy)
    wait(vss.prepare_for_backup(), deadline, "PrepareForBackup")
    wait(vss.gather_writer_status(), deadline, "GatherWriterStatus")
    found["status"] = [
        [item.name, item.state.name, item.code, item.application_code, item.message]
        for item in vss.writer_status()
    ]
    wait(vss.do_snapshot_set(), deadline, "DoSnapshotSet")
    shadow = vss.snapshot(copy)
    found["snapshot"] = [
        str(shadow.id),
        str(shadow.set_id),
        shadow.device,
        shadow.volume,
        str(shadow.provider_id),
        shadow.attributes,
        shadow.created.isoformat(),
        shadow.state,
    ]
    try:
        vss.snapshot(UUID(int=1))
    except SnapshotError as exc:
        found["unknown copy"] = exc.code
    found["xml"] = vss.save_as_xml()
    wait(vss.backup_complete(), deadline, "BackupComplete")
    vss.abort_backup()
    vss.release()
    com.leave_apartment(system)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main()))
