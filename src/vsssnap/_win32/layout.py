"""What the structures of Windows are long, checked when its libraries are first used.

The declarations say how each is laid out; the sizes are counted by cffi in this process, for its
compiler's rules.  A process that counted otherwise than Windows did would write over its own memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vsssnap._win32._ffi import ffi
from vsssnap.errors import ProviderUnavailableError

# Of 64-bit Windows: Windows SDK, vss.h, vsmgmt.h, vsbackup.h, winioctl.h, minwinbase.h.
SIZES: Final[Mapping[str, int]] = {
    "GUID": 16,
    "OVERLAPPED": 32,
    "VSS_SNAPSHOT_PROP": 128,
    "VSS_PROVIDER_PROP": 72,
    "VSS_OBJECT_PROP": 136,
    "VSS_COMPONENTINFO": 72,
    "VSS_DIFF_AREA_PROP": 40,
    "VSS_DIFF_VOLUME_PROP": 32,
    "VSS_MGMT_OBJECT_PROP": 48,
    "VSS_VOLUME_PROTECTION_INFO": 24,
    "NTFS_VOLUME_DATA_BUFFER": 96,
    "VOLUME_BITMAP_BUFFER": 24,
    "IVssWriterComponentsExt": 16,
}


def check(sizes: Mapping[str, int] = SIZES) -> None:
    """Compare all sizes, where pointers have eight bytes.

    Raises:
        ProviderUnavailableError: one is not that of Windows; nothing was called yet.
    """
    if ffi.sizeof("void *") != 8:
        return
    found = {name: ffi.sizeof(name) for name in sizes}
    wrong = [
        f"{name} is {found[name]} bytes, not {size}" for name, size in sizes.items() if found[name] != size
    ]
    if wrong:
        raise ProviderUnavailableError(
            f"structures of Windows are laid out wrongly: {'; '.join(wrong)}",
            reasons={"vss": f"structures of Windows are laid out wrongly: {wrong[0]}"},
            hint="this build of cffi does not suit this Python; reinstall it",
        )
