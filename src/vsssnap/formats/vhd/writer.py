"""Writing VHD images: what all kinds have in common, and fixed ones."""

from __future__ import annotations

import dataclasses
import time
import uuid
from typing import TYPE_CHECKING

from vsssnap.errors import UsageError
from vsssnap.formats.raw import RawOptions, RawStream, RawWriter
from vsssnap.formats.vhd import structs
from vsssnap.formats.vhd.geometry import geometry_of
from vsssnap.formats.vhd.structs import FOOTER_SIZE, SECTOR, Footer

if TYPE_CHECKING:
    from datetime import datetime

    from vsssnap.formats.storage import Storage
    from vsssnap.formats.vhd.options import VhdOptions
    from vsssnap.metadata import ImageMetadata

# Readers take the size from the bytes or from the geometry by who the creator is, and those that
# are not known to QEMU have the geometry's there.  Under this name, Hyper-V's, all take the bytes.
_CREATOR = b"win "
_CREATOR_VERSION = 0x000A_0000
_CREATOR_HOST = b"Wi2k"


def check_size(size: int) -> None:
    """Hold a size against the format.

    Raises:
        UsageError: it is 0, no whole sectors, or above 2040 GiB.
    """
    if not size or size % SECTOR or size > structs.MAX_SIZE:
        raise UsageError(
            f"a VHD cannot hold {size} bytes: it takes 512 to {structs.MAX_SIZE}, whole sectors of 512 bytes",
            hint="choose vhdx, qcow2 or vsnap" if size > structs.MAX_SIZE else "choose vsnap or raw",
        )


def time_stamp(when: float) -> int:
    """A Unix time as the format counts, as near as it can."""
    return min(max(0, int(when) - structs.EPOCH), 0xFFFF_FFFF)


def make_footer(size: int, disk_type: int, identity: uuid.UUID | None, created: datetime | None) -> bytes:
    """A footer, one sector."""
    cylinders, heads, sectors = geometry_of(size)
    footer = Footer(
        cookie=structs.FOOTER_COOKIE,
        features=structs.FEATURES,
        version=structs.VERSION,
        data_offset=structs.NO_OFFSET if disk_type == structs.FIXED else FOOTER_SIZE,
        time_stamp=time_stamp(created.timestamp() if created is not None else time.time()),
        creator=_CREATOR,
        creator_version=_CREATOR_VERSION,
        creator_host=_CREATOR_HOST,
        original_size=size,
        current_size=size,
        cylinders=cylinders,
        heads=heads,
        sectors=sectors,
        disk_type=disk_type,
        checksum=0,
        identity=(identity if identity is not None else uuid.uuid4()).bytes,
        saved_state=0,
    )
    plain = footer.pack()
    footer = dataclasses.replace(footer, checksum=structs.checksum(plain, Footer.OFFSETS["checksum"]))
    return footer.pack().ljust(FOOTER_SIZE, b"\0")


class FixedWriter(RawWriter):
    """A fixed image: the volume's bytes, any order, and a footer behind them.

    The file has its full length from the start, so it ends in zeros until the footer is written,
    even where the volume's own last sector looks like one.
    """

    def __init__(self, storage: Storage, size: int, options: VhdOptions) -> None:
        super().__init__(storage, size, RawOptions(preallocate=options.preallocate))
        storage.truncate(size + FOOTER_SIZE)
        self._footer = make_footer(size, structs.FIXED, options.identity, options.created)

    def finish(self, metadata: ImageMetadata, /) -> None:
        """See `ImageWriter`: the footer, when all else is safe."""
        self._storage.flush()
        self._storage.pwrite(self._footer, self.size)
        self._storage.flush()


class FixedStream(RawStream):
    """A fixed image that goes to a pipe; zeros too."""

    def __init__(self, storage: Storage, size: int, options: VhdOptions) -> None:
        super().__init__(storage, size)
        self._footer = make_footer(size, structs.FIXED, options.identity, options.created)

    def finish(self, metadata: ImageMetadata, /) -> None:
        """See `ImageWriter`: the rest, then the footer."""
        super().finish(metadata)
        self._storage.append([self._footer])
        self._storage.flush()
