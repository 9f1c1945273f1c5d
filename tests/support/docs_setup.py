"""What the examples of the documentation find when they run; listed in docs/contributing.md."""

from __future__ import annotations

from pathlib import Path

from volsnap_model import BLOCK, model_of

_MIB = 1 << 20


class Store:
    """The reader's own store of blocks, by offset."""

    def __init__(self) -> None:
        self.blocks: dict[int, bytes] = {}

    def put(self, offset: int, block: bytes | memoryview) -> None:
        """Keep a copy of a block."""
        self.blocks[offset] = bytes(block)


def prepare(folder: Path) -> dict[str, object]:
    """Make the files of one page in ``folder``; the names its examples start with."""
    # 3 MiB: text, a hole of 1 MiB and a bit, text again, a hole up to the end.
    with open(folder / "disk.raw", "wb") as disk:
        disk.write(b"the first block of the disk\n" * 9000)
        disk.seek(3 * _MIB // 2)
        disk.write(b"something in the middle\n" * 9000)
        disk.truncate(3 * _MIB)
    _volume(folder / "volume.raw")
    return {"__name__": "example", "store": Store()}


def _volume(path: Path) -> None:
    """A volume with two shadow copies."""
    exported = model_of(1, copies=2, steps=30, blocks=60, storage_blocks=80).export()
    with open(path, "wb") as volume:
        for number, block in exported.volume.items():
            volume.seek(number * BLOCK)
            volume.write(block)
        volume.truncate(exported.size)
