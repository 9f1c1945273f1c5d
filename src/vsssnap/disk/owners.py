"""Partitions under LVM that nobody uses here, but another host may.

Disks that several hosts see hold volume groups of which LVM lets only one host make use, or several that
agree with one another.  Nothing here would notice that another one writes to them.

Source: lvmsystemid(7), "Types of VG access", "Overriding system ID"; lvmlockd(8).
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final

from vsssnap import _process
from vsssnap.blocks.device import open_path
from vsssnap.errors import DeviceReadError, QuiesceError, SnapshotBusyError
from vsssnap.volumes.lvm.finding import grouped
from vsssnap.volumes.lvm.label import has_label

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vsssnap._deadline import Deadline
    from vsssnap.blocks.reader import BlockReader

_SAID: Final = re.compile(r"^\s*system ID:[ \t]*(\S*)", re.MULTILINE)


def elsewhere(devices: Mapping[int | str, str], deadline: Deadline) -> dict[int | str, str]:
    """Which partitions may be in use by another host, and why; the end of a sentence.

    Args:
        devices: Partitions that nobody uses here, by number.
        deadline: For asking LVM.
    """
    reasons: dict[int | str, str] = {}
    with contextlib.ExitStack() as stack:
        opened: dict[int, BlockReader] = {}
        for number, path in devices.items():
            with contextlib.suppress(DeviceReadError, SnapshotBusyError):  # whoever watches it will say so
                reader = stack.enter_context(open_path(path))
                if isinstance(number, int) and has_label(reader):
                    opened[number] = reader
        groups = {number: found.group for number, found in grouped(opened).items()}
    us = None
    for each, group in groups.items():
        if group is None:
            continue
        if group.shared:
            reasons[each] = f"is of the volume group {group.name}, which hosts share"
        elif group.system_id:
            us = us if us is not None else _system_id(deadline)
            if group.system_id != us:
                reasons[each] = f"is of the volume group {group.name}, which the host {group.system_id} owns"
    return reasons


def _system_id(deadline: Deadline) -> str:
    """The name that LVM knows this host by; "" if it has none, or no LVM: then such groups are of others."""
    try:
        said = _process.run(["lvm", "systemid"], deadline, "ask LVM for the name of this host")
    except QuiesceError:
        return ""
    found = _SAID.search(said.output)
    return found[1] if found is not None and not said.code else ""
