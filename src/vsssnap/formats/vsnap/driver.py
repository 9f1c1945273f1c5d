"""The `.vsnap` format as a driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vsssnap.errors import UsageError
from vsssnap.formats._storages import owning
from vsssnap.formats.base import ImageFormat, ImageReader, ImageWriter, Probe, ResolveParent, options_of
from vsssnap.formats.vsnap.opening import open_recovering, open_strict
from vsssnap.formats.vsnap.options import VsnapOptions
from vsssnap.formats.vsnap.reader import VsnapReader
from vsssnap.formats.vsnap.structs import FOOTER_SIZE, MAGIC, MARK
from vsssnap.formats.vsnap.writer import VsnapWriter

if TYPE_CHECKING:
    from vsssnap.formats.storage import Storage


class VsnapFormat(ImageFormat):
    """Our own format: docs/formats/vsnap.md."""

    name: ClassVar[str] = "vsnap"
    suffixes: ClassVar[tuple[str, ...]] = (".vsnap",)
    options_type: ClassVar[type] = VsnapOptions
    features: ClassVar[frozenset[str]] = frozenset(
        {"compression", "checksums", "holes", "metadata", "parents", "streaming", "unreadable"}
    )

    def probe(self, seen: Probe, /) -> int:
        """By the magic of the first frame, or of a footer if the start is damaged."""
        if seen.head[8:16] == MAGIC:
            return 100 if seen.head[:4] == MARK else 90
        for copy in (1, 2):
            start = len(seen.tail) - copy * FOOTER_SIZE
            if (
                start >= 0
                and seen.tail[start : start + 4] == MARK
                and seen.tail[start + 8 : start + 16] == MAGIC
            ):
                return 90
        return 10 if seen.name.lower().endswith(self.suffixes) else 0

    def open(
        self, storage: Storage, /, *, resolve_parent: ResolveParent | None = None, recover: bool = False
    ) -> ImageReader:
        """See `ImageFormat`."""
        with owning(storage):
            if recover:
                return open_recovering(storage, resolve_parent)
            return open_strict(storage, resolve_parent)

    def create(
        self, storage: Storage, size: int, /, *, options: object = None, parent: ImageReader | None = None
    ) -> ImageWriter:
        """See `ImageFormat`."""
        with owning(storage):
            chosen = options_of(VsnapOptions, options, self.name)
            if parent is not None and not isinstance(parent, VsnapReader):
                name = getattr(parent, "format", type(parent).__name__)
                raise UsageError(
                    f"a {name} image cannot be the parent of a vsnap image",
                    hint="save a full vsnap image first",
                )
            return VsnapWriter(storage, size, chosen, parent)
