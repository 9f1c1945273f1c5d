"""CowVolume against full copies: a bytearray for the volume and one for each snapshot."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cow_volumes import MemoryVolume, shadow_on_disk
from vsssnap.blocks.cow import CowSnapshot, CowVolume, WhenFull
from vsssnap.blocks.extent import READS_AS_ZERO
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import InsufficientStorageError, SnapshotLostError

BLOCK = 4096
SIZE = 40 * BLOCK + 1000  # the last block is short
AMPLE = 1 << 30
# The least that one store takes is 16 KiB and a block; this much holds a few dozen blocks.
LIMITS = (0, 5 * BLOCK, 60_000, 100_000, 200_000, AMPLE)

offsets = st.one_of(st.integers(0, SIZE), st.integers(0, 40).map(lambda block: block * BLOCK))
lengths = st.one_of(
    st.integers(0, 3 * BLOCK), st.integers(1, 12).map(lambda blocks: blocks * BLOCK), st.just(SIZE)
)


@dataclass
class Copy:
    snapshot: CowSnapshot
    reader: BlockReader
    data: bytes
    lost: bool = False


class CowMachine(RuleBasedStateMachine):
    when_full = WhenFull.LOSE_SNAPSHOT

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="vsssnap-model-"))
        self.copies: list[Copy] = []
        self.stamp = 0

    @initialize(limit=st.sampled_from(LIMITS), zeros=st.integers(0, SIZE))
    def begin(self, limit: int, zeros: int) -> None:
        self.limit = limit
        self.model = bytearray(bytes(zeros) + b"\xaa" * (SIZE - zeros))
        self.volume = CowVolume(
            MemoryVolume(bytes(self.model)),
            block_size=BLOCK,
            shadow_folder=self.folder,
            shadow_limit=limit,
            when_full=self.when_full,
        )

    def living(self) -> list[Copy]:
        return [copy for copy in self.copies if not copy.lost]

    def see_losses(self) -> None:
        """Losses come with a write, only when there is a bound to reach, the oldest first."""
        before = self.living()
        now = [bool(copy.snapshot.lost) for copy in before]
        for copy, lost in zip(before, now, strict=True):
            copy.lost = lost
        assert now == sorted(now, reverse=True)
        if self.limit == AMPLE or self.when_full is WhenFull.FAIL_WRITE:
            assert not any(now)

    @rule(offset=offsets, length=lengths, zero=st.booleans())
    def write(self, offset: int, length: int, zero: bool) -> None:
        length = min(length, SIZE - offset)
        self.stamp = self.stamp % 255 + 1
        data = bytes(length) if zero else bytes([self.stamp]) * length
        try:
            self.volume.pwrite(data, offset)
        except InsufficientStorageError:
            assert self.when_full is WhenFull.FAIL_WRITE
            assert self.limit != AMPLE
            assert self.living()
        else:
            self.model[offset : offset + length] = data
        self.see_losses()

    @precondition(lambda self: len(self.copies) < 6)
    @rule()
    def snapshot(self) -> None:
        snapshot = self.volume.snapshot()
        self.copies.append(Copy(snapshot, snapshot.open(), bytes(self.model)))

    @precondition(lambda self: self.copies)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        copy = self.copies.pop(data.draw(st.integers(0, len(self.copies) - 1)))
        copy.reader.close()
        copy.snapshot.close()
        if not self.copies:
            assert self.volume.shadow_used == 0

    @precondition(lambda self: self.copies)
    @rule(data=st.data(), offset=offsets, length=lengths)
    def read(self, data: st.DataObject, offset: int, length: int) -> None:
        copy = data.draw(st.sampled_from(self.copies))
        if copy.lost:
            with pytest.raises(SnapshotLostError):
                copy.reader.pread(max(1, length), min(offset, SIZE - 1))
            return
        assert copy.reader.pread(length, offset) == copy.data[offset : offset + length]

    @rule(offset=offsets, length=lengths)
    def read_volume(self, offset: int, length: int) -> None:
        assert self.volume.pread(length, offset) == self.model[offset : offset + length]

    @precondition(lambda self: self.copies)
    @rule(data=st.data(), offset=offsets, length=lengths)
    def extents(self, data: st.DataObject, offset: int, length: int) -> None:
        copy = data.draw(st.sampled_from(self.copies))
        if copy.lost:
            return
        at = offset
        for extent in copy.reader.extents(offset, length):
            assert extent.offset == at
            at = extent.end
            if extent.kind in READS_AS_ZERO:
                assert not any(copy.data[extent.offset : extent.end])
        assert at == max(offset, min(offset + length, SIZE))

    @invariant()
    def shadow_storage_stays_under_its_bound(self) -> None:
        if hasattr(self, "limit"):
            assert shadow_on_disk(self.folder) <= self.limit

    def teardown(self) -> None:
        try:
            for copy in self.copies:
                if copy.lost:
                    with pytest.raises(SnapshotLostError):
                        copy.reader.confirm()
                else:
                    assert copy.reader.pread(SIZE, 0) == copy.data
                    copy.reader.confirm()
        finally:
            for copy in self.copies:
                copy.reader.close()
                copy.snapshot.close()
            if hasattr(self, "volume"):
                assert self.volume.shadow_used == 0
                self.volume.close()
            shutil.rmtree(self.folder)


class FailingCowMachine(CowMachine):
    when_full = WhenFull.FAIL_WRITE


TestLosingSnapshots = CowMachine.TestCase
TestFailingWrites = FailingCowMachine.TestCase
for case in (TestLosingSnapshots, TestFailingWrites):
    case.settings = settings(deadline=None, stateful_step_count=40)
