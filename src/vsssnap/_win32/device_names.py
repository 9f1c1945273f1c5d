r"""Names of devices: which paths mean a volume or disk, and not a file.

Source: "Naming Files, Paths, and Namespaces" (Win32 device namespaces), "Naming a Volume"; Windows SDK
documentation.  Nothing here calls Windows.
"""

from __future__ import annotations

import re

_DRIVE = re.compile(r"([a-zA-Z]:)\\?", re.ASCII)
_DEVICE = re.compile(
    r"\\\\[.?]\\([^\\/]+|GLOBALROOT\\Device\\[^\\/]+(\\(Partition|DR)\d+)?)\\?", re.IGNORECASE | re.ASCII
)
_DISK = re.compile(
    r"\\\\[.?]\\(PhysicalDrive\d+|GLOBALROOT\\Device\\Harddisk\d+\\(DR\d+|Partition0))",
    re.IGNORECASE | re.ASCII,
)


def device_path(name: str) -> str | None:
    r"""The path that opens a device, or None if a name is that of a file.

    Args:
        name: ``\\.\PhysicalDrive0``, ``\\.\C:``, ``C:``, ``\\?\Volume{...}\``, or
            ``\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy1``.

    Returns:
        Without a backslash at its end, which would mean the root folder.
    """
    drive = _DRIVE.fullmatch(name)
    if drive is not None:
        return f"\\\\.\\{drive[1]}"
    return name.rstrip("\\") if _DEVICE.fullmatch(name) else None


def is_disk(path: str) -> bool:
    """Whether a device's path is that of a whole disk."""
    return _DISK.fullmatch(path) is not None
