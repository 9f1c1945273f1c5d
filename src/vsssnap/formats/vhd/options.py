"""Create options of VHD images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from vsssnap._units import KIB, MIB
from vsssnap.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

_BLOCK_SIZES: Final = (512 * KIB, 2 * MIB)  # all that Windows makes: CREATE_VIRTUAL_DISK_PARAMETERS


@dataclass(frozen=True, slots=True, kw_only=True)
class VhdOptions:
    """How a VHD image is made.

    Attributes:
        kind: ``"dynamic"`` (only blocks with data take space) or ``"fixed"`` (the volume's bytes
            and a footer); None for dynamic, or fixed where the target is a pipe.  With a parent
            the image is differencing.
        block_size: Bytes: 512 KiB or 2 MiB, the unit of allocation of what is not fixed.
        preallocate: Reserve the space of a fixed image first.
        sidecar: Whether checksums, states and metadata are kept in ``<image>.vsssnap``.
        identity: Instead of a random one, for reproducible files; never give one to two images.
        created: Time stamp of the image; None for now.
    """

    kind: Literal["dynamic", "fixed"] | None = None
    block_size: int = 2 * MIB
    preallocate: bool = False
    sidecar: bool = False
    identity: UUID | None = None
    created: datetime | None = None

    def check(self, *, seekable: bool, child: bool) -> bool:
        """Hold the options against the target and each other.

        Returns:
            Whether the image is fixed.

        Raises:
            UsageError: they do not go together.
        """
        if self.kind not in (None, "dynamic", "fixed"):
            raise UsageError(f"kind is {self.kind!r}", hint='choose "dynamic" or "fixed"')
        if self.block_size not in _BLOCK_SIZES:
            raise UsageError(
                f"block_size is {self.block_size}, a VHD has 512 KiB or 2 MiB",
                hint="leave it at 2 MiB unless you know why not",
            )
        if self.created is not None and self.created.utcoffset() is None:
            raise UsageError("created has no time zone", hint="use datetime.now(timezone.utc)")
        if child:
            if self.kind is not None:
                raise UsageError(
                    f"a VHD with a parent is differencing, not {self.kind}", hint="leave kind at None"
                )
            if not seekable:
                raise UsageError("a differencing VHD cannot go to a pipe", hint="save it to a file")
        fixed = self.kind == "fixed" or (self.kind is None and not seekable and not child)
        if not fixed and not seekable:
            raise UsageError("a dynamic VHD cannot go to a pipe", hint='pass kind="fixed", or save to a file')
        if self.preallocate and not (fixed and seekable):
            raise UsageError("only a fixed VHD in a file can be preallocated", hint='pass kind="fixed"')
        return fixed
