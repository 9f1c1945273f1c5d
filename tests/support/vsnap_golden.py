"""The golden images of `.vsnap` format 0: how they were made.

They are kept so that a change of the layout is seen: today's reader must read yesterday's files.
Run it after a change of the layout that is meant, and only then: ``python tests/support/vsnap_golden.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from checkout import TOP
from vsnap_images import FORMAT, every_kind, image_of, noise, opened
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.consistency import Consistency
from vsssnap.formats import MemoryStorage
from vsssnap.formats.base import ImageReader
from vsssnap.formats.vsnap import VsnapOptions
from vsssnap.imaging.opening import open_image
from vsssnap.metadata import ImageMetadata, WriterReport

FOLDER = TOP / "tests" / "golden" / "vsnap0"
NAMES = ("full", "child", "grandchild")
UNIT = 1 << 16

METADATA = ImageMetadata(
    volume="C:",
    device="\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy7",
    filesystem="NTFS",
    provider="vss",
    snapshot_id="{5e0f34b4-3a24-4a0e-9d0b-2f0c9a2f5e11}",
    created=datetime(2024, 2, 29, 23, 59, 58, tzinfo=UTC),
    consistency=Consistency.APPLICATION,
    writers=(WriterReport(name="Registry Writer", state="STABLE"),),
    exclusions=("\\pagefile.sys",),
    notes=("a note",),
    documents={"components.xml": b"<components/>" * 30, "raw": bytes(range(256))},
    user={"job": 7, "umlaut": "\u00e4"},
)


def contents() -> list[bytes]:
    """What the images hold; UNREADABLE as zeros."""
    full, _ = every_kind()
    child = bytearray(full)
    child[8192 : 8192 + 600] = noise(9, 600)
    child[3 * UNIT : 4 * UNIT] = noise(10, UNIT)
    grandchild = bytearray(child)
    grandchild[0:100] = bytes(100)
    grandchild[5 * UNIT :] = bytes(len(full) - 5 * UNIT)
    return [full, bytes(child), bytes(grandchild)]


def make() -> list[bytes]:
    """The files, written anew."""
    data = contents()
    small = VsnapOptions(level=3, chunk_size=UNIT, cell_size=4096, image_id=UUID(int=101))
    full = image_of(data[0], every_kind()[1], options=small, metadata=METADATA)
    with opened(full) as parent:
        parent.path = "full.vsnap"
        chosen = VsnapOptions(level=0, image_id=UUID(int=102))
        child = image_of(data[1], options=chosen, parent=parent, only=[0, 3])
    with _chain(full, child) as parent:
        parent.path = "child.vsnap"
        chosen = VsnapOptions(level=1, image_id=UUID(int=103))
        marks = [Extent(0, 100, ExtentKind.ZERO), Extent(5 * UNIT, 777, ExtentKind.EXCLUDED)]
        grandchild = image_of(data[2], marks, options=chosen, parent=parent, only=[], metadata=METADATA)
    return [full, child, grandchild]


def _chain(full: bytes, child: bytes) -> ImageReader:
    def resolve(names: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        return opened(full)

    return FORMAT.open(MemoryStorage(child), resolve_parent=resolve)


def main() -> None:
    """Write them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    files = make()
    for name, file in zip(NAMES, files, strict=True):
        (FOLDER / f"{name}.vsnap").write_bytes(file)
    rows = [describe(FOLDER / f"{name}.vsnap", data) for name, data in zip(NAMES, contents(), strict=True)]
    text = json.dumps(dict(zip(NAMES, rows, strict=True)), indent=1, sort_keys=True)
    (FOLDER / "golden.json").write_text(text + "\n", encoding="utf-8")


def describe(path: Path, data: bytes) -> dict[str, object]:
    """A row of golden.json; content by what was written, the rest as the reader says it today."""
    with open_image(path) as reader:
        return {
            "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "content_sha256": hashlib.sha256(data).hexdigest(),
            "extents": [[extent.offset, extent.length, extent.kind.value] for extent in reader.extents()],
            "info": reader.info(),
        }


if __name__ == "__main__":
    main()
