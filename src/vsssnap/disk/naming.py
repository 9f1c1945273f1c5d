"""What the parts of a disk are called, and in which order they come."""

from __future__ import annotations

from vsssnap.volumes.lvm.finding import WHOLE


def named(key: int | str) -> str:
    """A partition by its number, or a logical volume by ``"group/volume"``, in words."""
    if isinstance(key, str):
        return f"logical volume {key}"
    return "the disk" if key == WHOLE else f"partition {key}"


def in_order(item: tuple[int | str, str]) -> tuple[bool, int, str]:
    """Partitions by number, then logical volumes by name."""
    key = item[0]
    return (False, key, "") if isinstance(key, int) else (True, 0, key)
