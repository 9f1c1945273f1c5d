"""How a volume keeps the originals of what is overwritten, and how its snapshots read.

A write: enter the gate (an instant keeps writers out), save what the newest snapshot would
lose, write, leave.  A block is marked as saved *before* it is written; so a reader of a
snapshot may read the volume without any lock, and look again afterwards: a block that is still
unmarked cannot have changed, any other is read again from where it lies now.  No lock is
held while bytes move, and two writes wait for each other only over a block that one of them
is saving.
"""

from __future__ import annotations

import enum
import os
from typing import TYPE_CHECKING, Final

from vsssnap._units import MIB, format_size
from vsssnap._uses import UseGate
from vsssnap.blocks.cow.bitmap import full, runs
from vsssnap.blocks.cow.chain import Chain
from vsssnap.blocks.cow.claims import FullError
from vsssnap.blocks.cow.gate import InstantGate
from vsssnap.blocks.cow.store import NO_ROOM, ShadowStore
from vsssnap.blocks.extent import Extent, ExtentKind, clip, coalesce, overlay
from vsssnap.errors import (
    ClosedError,
    InsufficientStorageError,
    SnapshotLostError,
    UsageError,
    VssSnapError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.blocks.cow.backing import Backing
    from vsssnap.blocks.cow.claims import Claim

_SAVE: Final = MIB  # bytes of originals that one writer holds in memory
_LOOK: Final = 4096  # blocks whose place is looked up at once


class WhenFull(enum.StrEnum):
    """What happens when the original of a block cannot be saved before it is overwritten."""

    LOSE_SNAPSHOT = "lose-snapshot"
    """The write goes on; snapshots are lost, the oldest first, until there is room (as VSS does)."""
    FAIL_WRITE = "fail-write"
    """The write raises and changes nothing; the snapshots live."""


class CowEngine:
    """The mechanics behind `CowVolume`; arguments are valid and ranges inside the volume."""

    def __init__(
        self, backing: Backing, *, name: str, block_size: int, folder: str, limit: int, when_full: WhenFull
    ) -> None:
        self.backing = backing
        self.name = name
        self.block_size: Final = block_size
        self.folder = folder
        self.when_full = when_full
        self.chain = Chain(name, limit)
        self.gate = InstantGate()
        self.uses = UseGate(name)
        self._pid = os.getpid()

    def check_process(self) -> None:
        """Refuse a forked child: what it does, the index in the parent would not know of."""
        if os.getpid() != self._pid:
            raise UsageError(
                f"{self.name} belongs to process {self._pid}, this is {os.getpid()}",
                hint="open the volume after the fork, in one process only",
            )

    # The volume.

    def write(self, data: memoryview, offset: int) -> None:
        """Save what snapshots need of a range and write it, before or after any instant."""
        with self.uses, self.gate:
            self._protect(offset, len(data))
            self.backing.write(data, offset)

    def new_store(self) -> ShadowStore:
        """Shadow storage for a snapshot that is about to begin."""
        self.check_process()
        with self.uses:
            return ShadowStore(self.folder, self.backing.size)

    def close(self) -> None:
        """Lose every snapshot and let the backing go."""
        if os.getpid() == self._pid:
            self.chain.end("the volume was closed")
        self.uses.close(self.backing.close)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What a range of the volume holds now."""
        for at, count in self._cut(offset, length):
            with self.uses:
                now = list(self.backing.extents(at, count))
            yield from now

    def _cut(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """A range in spans of `_LOOK` blocks of an aligned grid: ``(offset, length)``."""
        span, end = _LOOK * self.block_size, offset + length
        while offset < end:
            count = min(end - offset, span - offset % span)
            yield offset, count
            offset += count

    # Writing.

    def _protect(self, offset: int, length: int) -> None:
        block, end = offset // self.block_size, -(-(offset + length) // self.block_size)
        step = max(1, _SAVE // self.block_size)
        while block < end and self.chain.active:
            count = min(step - block % step, end - block)
            held: list[Claim] = []
            try:
                while self.chain.claim(block, count, held):
                    self._keep(held[0])
                    self.chain.finish(held)
            except BaseException:
                self.chain.finish(held)
                raise
            block += count

    def _keep(self, claim: Claim) -> None:
        """Save the originals of a claim, or give up what would need them."""
        try:
            self._save(claim)
        except FullError as exc:
            self._no_room(claim, exc)
        except MemoryError:
            raise  # the write fails, with everything as it was
        except Exception as exc:
            if self.when_full is WhenFull.FAIL_WRITE:
                raise
            self.chain.lose_lacking(
                claim.first, claim.mask, f"the original of {self._place(claim)} was not saved: {exc}"
            )

    def _save(self, claim: Claim) -> None:
        size, unit = self.backing.size, self.block_size
        for start, count in runs(claim.mask):
            offset = (claim.first + start) * unit
            data = self.backing.read(min(count * unit, size - offset), offset)
            blank = _zero_blocks(data, unit)
            if blank and not self.chain.commit(claim, blank << start, blank << start):
                return
            view = memoryview(data)
            for at, blocks in runs(full(count) & ~blank):
                piece = view[at * unit : (at + blocks) * unit]
                if not self._store(claim, piece, offset + at * unit, full(blocks) << (start + at), blocks):
                    return

    def _store(self, claim: Claim, data: memoryview, offset: int, mask: int, blocks: int) -> bool:
        epoch = self.chain.epoch
        self.chain.reserve(claim, len(data), blocks)
        try:
            claim.store.write(data, offset)
        except BaseException as exc:
            self.chain.refund(claim)
            if isinstance(exc, OSError) and not isinstance(exc, VssSnapError) and exc.errno in NO_ROOM:
                raise FullError(epoch, exc.errno) from exc
            raise
        return self.chain.commit(claim, mask, 0)

    def _no_room(self, claim: Claim, exc: FullError) -> None:
        limit, used = self.chain.limit, self.chain.used
        problem = (
            f"shadow storage in {self.folder} is full ({format_size(used)} used of {format_size(limit)})"
            if exc.code is None
            else f"the disk of shadow storage in {self.folder} is full ({format_size(used)} used by it)"
        )
        hint = (
            "raise shadow_limit="
            if exc.code is None
            else "free some space there, or name another shadow_folder="
        )
        if self.when_full is WhenFull.FAIL_WRITE:
            raise InsufficientStorageError(
                f"{self.name}: {problem}; {self._place(claim)} was not written",
                call="" if exc.code is None else "pwrite",
                code=exc.code,
                hint=f"{hint}, or close snapshots",
            ) from exc
        self.chain.make_room(exc.epoch, f"{problem} when {self._place(claim)} was written; {hint}")

    def _place(self, claim: Claim) -> str:
        start, _ = next(runs(claim.mask))
        return f"block {claim.first + start} (offset {(claim.first + start) * self.block_size})"

    # Snapshots.

    def check(self, store: ShadowStore) -> None:
        """Raise SnapshotLostError if the snapshot of ``store`` is gone."""
        if store.lost:
            raise SnapshotLostError(
                f"the snapshot of {self.name} is lost: {store.lost}",
                hint="throw away what was read from it and take another",
            )

    def read_snapshot(self, store: ShadowStore, view: memoryview, offset: int) -> None:
        """Fill ``view`` with the bytes of a range as they were."""
        self.check_process()
        for at, count in self._cut(offset, len(view)):
            self._read_span(store, view[at - offset : at - offset + count], at)

    def _read_span(self, store: ShadowStore, view: memoryview, offset: int) -> None:
        unit = self.block_size
        first = offset // unit
        count = -(-(offset + len(view)) // unit) - first
        wanted = full(count)
        while wanted:
            plan = self.chain.plan(store, first, count, wanted, pin=True)
            failure: Exception | None = None
            try:
                self.check(store)
                for held, mask in plan.stores:
                    for part, place in _parts(view, offset, first, mask, unit):
                        held.read_into(part, place)
                for part, _ in _parts(view, offset, first, plan.zero, unit):
                    part[:] = bytes(len(part))
                if plan.volume:
                    with self.uses:
                        for part, place in _parts(view, offset, first, plan.volume, unit):
                            self.backing.read_into(part, place)
            except Exception as exc:  # the chain may explain it; else it is raised below
                failure = exc
            finally:
                self.chain.unpin(plan)
            again = self.chain.plan(store, first, count, plan.volume, pin=False)
            self.check(store)
            # What has been saved meanwhile may have been read too late; no other block can have moved.
            wanted = plan.volume & ~again.volume
            if failure is not None:
                if not wanted or isinstance(failure, ClosedError):
                    raise failure
                wanted = full(count)

    def snapshot_extents(self, store: ShadowStore, offset: int, length: int) -> Iterator[Extent]:
        """What a range held, ascending and gap-free."""
        return coalesce(self._spans(store, offset, length))

    def _spans(self, store: ShadowStore, offset: int, length: int) -> Iterator[Extent]:
        unit = self.block_size
        for start, size in self._cut(offset, length):
            self.check_process()
            self.check(store)
            first = start // unit
            count = -(-(start + size) // unit) - first
            try:
                with self.uses:
                    now = list(self.backing.extents(start, size))
            except ClosedError:
                self.check(store)
                raise
            # Looked at after the volume: what is unmarked now had not changed then.
            plan = self.chain.plan(store, first, count, full(count), pin=False)
            self.check(store)
            saved = [
                Extent((first + at) * unit, blocks * unit, kind)
                for mask, kind in (
                    (plan.zero, ExtentKind.ZERO),
                    (full(count) & ~plan.zero & ~plan.volume, ExtentKind.DATA),
                )
                for at, blocks in runs(mask)
            ]
            saved.sort(key=lambda extent: extent.offset)
            yield from overlay(now, clip(saved, start, size))


def _parts(
    view: memoryview, offset: int, first: int, mask: int, unit: int
) -> Iterator[tuple[memoryview, int]]:
    """The parts of ``view``, which begins at ``offset``, that lie in the blocks of ``mask``."""
    for at, count in runs(mask):
        begin = max(offset, (first + at) * unit)
        end = min(offset + len(view), (first + at + count) * unit)
        yield view[begin - offset : end - offset], begin


def _zero_blocks(data: bytes, unit: int) -> int:
    """Which blocks of ``data`` are all zero; the last one may be short."""
    mask = 0
    zeros = bytes(min(unit, len(data)))
    for index, at in enumerate(range(0, len(data), unit)):
        if data.startswith(zeros[: len(data) - at], at):
            mask |= 1 << index
    return mask
