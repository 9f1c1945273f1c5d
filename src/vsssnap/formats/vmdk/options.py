"""Create options of VMDK images."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final, Literal

from vsssnap._units import KIB, MIB, is_power_of_two
from vsssnap.errors import UsageError

_ADAPTERS: Final = ("lsilogic", "buslogic", "ide", "legacyESX")


@dataclass(frozen=True, slots=True, kw_only=True)
class VmdkOptions:
    """How a VMDK image is made.

    Attributes:
        kind: ``"monolithicSparse"`` (grains as they are, in a file) or ``"streamOptimized"``
            (compressed, also to a pipe; what an OVF holds); None for the one that the target can
            take, monolithicSparse for a file and streamOptimized for a pipe.
        level: Of deflate in streamOptimized, 0 (none) to 9 (smallest).
        grain_size: Bytes, the unit of allocation: a power of two, 8 KiB to 1 MiB.  Programs of
            VMware expect 64 KiB.
        adapter: Which controller the descriptor names: lsilogic, buslogic, ide or legacyESX.
        sidecar: Whether checksums, states and metadata are kept in ``<image>.vsssnap``.
        cid: Content id, for reproducible files; None for a random one.
    """

    kind: Literal["monolithicSparse", "streamOptimized"] | None = None
    level: int = 6
    grain_size: int = 64 * KIB
    adapter: str = "lsilogic"
    sidecar: bool = False
    cid: int | None = None

    def check(self, *, seekable: bool) -> str:
        """Hold the options against the target and each other.

        Returns:
            The kind to write.

        Raises:
            UsageError: they do not go together.
        """
        if self.kind not in (None, "monolithicSparse", "streamOptimized"):
            raise UsageError(f"kind is {self.kind!r}", hint="choose monolithicSparse or streamOptimized")
        if not 0 <= self.level <= 9:
            raise UsageError(f"level is {self.level}, outside 0..9", hint="1 is fast, 9 small")
        if not 8 * KIB <= self.grain_size <= MIB or not is_power_of_two(self.grain_size):
            raise UsageError(
                f"grain_size is {self.grain_size}, no power of two in 8 KiB..1 MiB", hint="leave it at 64 KiB"
            )
        if self.adapter not in _ADAPTERS:
            raise UsageError(f"adapter is {self.adapter!r}", hint=f"choose one of {', '.join(_ADAPTERS)}")
        if self.cid is not None and not 0 <= self.cid < 0xFFFF_FFFE:
            raise UsageError(f"cid is {self.cid}, outside 0..0xfffffffd")
        kind = self.kind or ("monolithicSparse" if seekable else "streamOptimized")
        if kind == "monolithicSparse" and not seekable:
            raise UsageError(
                "a monolithicSparse VMDK cannot go to a pipe", hint='pass kind="streamOptimized"'
            )
        return kind

    def content_id(self) -> int:
        """The content id of the new image."""
        return self.cid if self.cid is not None else secrets.randbelow(0xFFFF_FFFE)
