"""The test vectors of docs/formats/vectors: what they are, and how to write them again.

Run it after a change of the layout, and only then: ``python tests/support/vsnap_vectors.py``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from checkout import TOP
from vsnap_images import FORMAT, SMALL, documents, every_kind, image_of, noise, opened
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.formats import MemoryStorage
from vsssnap.formats.base import ImageReader
from vsssnap.formats.vsnap import VsnapOptions
from vsssnap.formats.vsnap.reader import VsnapReader
from vsssnap.metadata import ImageMetadata

FOLDER = TOP / "docs" / "formats" / "vectors"


@dataclass(frozen=True)
class Vector:
    """A vector.

    Attributes:
        name: Of its file.
        data: The content, with zeros for what is not data.
        file: What our writer makes of it.
        parents: Names of the files below it, oldest first.
        exact: Whether the file does not depend on the version of libzstd.
    """

    name: str
    data: bytes
    file: bytes
    parents: tuple[str, ...] = ()
    exact: bool = True


def _options(number: int, **changes: object) -> VsnapOptions:
    values = {field.name: getattr(SMALL, field.name) for field in dataclasses.fields(SMALL)}
    return VsnapOptions(**{**values, "image_id": UUID(int=number), **changes})


def vectors() -> list[Vector]:
    """All vectors, written anew."""
    mixed, marks = every_kind()
    empty = image_of(b"", options=_options(1))
    one = image_of(b"x", options=_options(2))
    raw = image_of(mixed, marks, options=_options(3), metadata=documents().replace(documents={}))
    packed = image_of(mixed, marks, options=_options(4, level=3, digest="blake3"), metadata=documents())
    sparse_size = 1 << 45
    sparse = image_of_sparse(sparse_size)
    changed = bytearray(mixed)
    changed[8192 : 8192 + 600] = noise(9, 600)
    changed[(5 << 16) :] = bytes(len(mixed) - (5 << 16))
    child_marks = [Extent(5 << 16, len(mixed) - (5 << 16), ExtentKind.ZERO)]
    below = opened(raw)
    below.path = "every-state.vsnap"
    child = image_of(bytes(changed), child_marks, options=_options(5), parent=below, only=[0])
    return [
        Vector("empty", b"", empty),
        Vector("one-byte", b"x", one),
        Vector("every-state", mixed, raw),
        Vector("compressed", mixed, packed, exact=False),
        Vector("child", bytes(changed), child, ("every-state",)),
        Vector("sparse-32-tib", b"", sparse),
    ]


def image_of_sparse(size: int) -> bytes:
    """An image of a volume of zeros with one byte of data far inside."""
    storage = MemoryStorage()
    writer = FORMAT.create(storage, size, options=_options(6))
    offset = size // 2
    writer.store(writer.encode(memoryview(b"!" + bytes(writer.unit - 1)), offset))
    writer.finish(ImageMetadata())
    writer.close()
    return bytes(storage.data)


def describe(vector: Vector, files: dict[str, bytes]) -> dict[str, object]:
    """What vectors.json says of a vector; UNREADABLE counts as zeros."""

    def resolve(names: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        return opened(files[names[0].removesuffix(".vsnap")])

    reader = FORMAT.open(MemoryStorage(vector.file), resolve_parent=resolve)
    assert isinstance(reader, VsnapReader)
    extents = [[extent.offset, extent.length, extent.kind.value] for extent in reader.extents()]
    small = reader.size < 1 << 30
    return {
        "file": f"{vector.name}.vsnap",
        "file_sha256": hashlib.sha256(vector.file).hexdigest(),
        "parents": [f"{name}.vsnap" for name in vector.parents],
        "size": reader.size,
        "content_root": reader.content_root.hex(),
        "content_sha256": hashlib.sha256(vector.data).hexdigest() if small else None,
        "extents": extents,
        "exact": vector.exact,
    }


def main() -> None:
    """Write the vectors."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = vectors()
    files = {vector.name: vector.file for vector in made}
    for vector in made:
        (FOLDER / f"{vector.name}.vsnap").write_bytes(vector.file)
    table = [describe(vector, files) for vector in made]
    lines = ",\n".join("  " + json.dumps(row) for row in table)
    (FOLDER / "vectors.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
