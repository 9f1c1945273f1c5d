"""What is said between the chain of stores and those who read and write."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from vsssnap.blocks.cow.store import ShadowStore


class FullError(Exception):
    """Shadow storage has no room; never leaves this package.

    Attributes:
        epoch: `Chain.epoch` when that was found.
        code: The disk's errno, or None if the bound was reached.
    """

    def __init__(self, epoch: int, code: int | None = None) -> None:
        super().__init__(epoch)
        self.epoch = epoch
        self.code = code


class Claim(NamedTuple):
    """Blocks that one thread has taken on to save, and the bytes that are set aside for it meanwhile."""

    store: ShadowStore
    first: int
    mask: int
    reserved: list[int]


class Plan(NamedTuple):
    """Where the blocks of a snapshot lie, as masks; disjoint."""

    stores: tuple[tuple[ShadowStore, int], ...]
    zero: int
    volume: int
