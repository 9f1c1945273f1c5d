"""The stores of a volume's snapshots, oldest first, and what may be said of them at one moment.

Model: a block that is written for the first time after an instant has its original saved once,
in the store of the *newest living* snapshot.  A snapshot finds the original of a block in its
own store, else in the next newer one that has it, else the block was not written since and
is read from the volume.  So a write costs the same however many snapshots there are.

A store outlives its snapshot while an older snapshot lives, which may need what it holds; the
front of the chain is always a living snapshot.

Nothing here does I/O under the lock.  Space is given back (`_sweep`) by whoever leaves the
lock last; a store that is dropped while others still use its file is emptied at once, and
closed by the last of them.

The lock can be entered again by its own thread: a forgotten snapshot is released by the
garbage collector, which runs in any thread, also in one that is in here.  Such a nested
entry only leaves a note (`release`), which the outer one acts on when it leaves.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from vsssnap.blocks.cow.bitmap import full
from vsssnap.blocks.cow.store import BLOCK_OVERHEAD, STORE_OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from vsssnap.blocks.cow.store import ShadowStore

_log = logging.getLogger("vsssnap.cow")


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
    """Blocks that one thread has taken on to save."""

    store: ShadowStore
    first: int
    mask: int


class Plan(NamedTuple):
    """Where the blocks of a snapshot lie, as masks; disjoint."""

    stores: tuple[tuple[ShadowStore, int], ...]
    zero: int
    volume: int


class Chain:
    """Stores, claims and the budget of shadow storage.  Thread-safe."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self.limit: Final = limit
        self.epoch = 0  # how often room was made
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._depth = 0
        self._ended = ""
        self._room = threading.Lock()  # one thread at a time makes room, so that one loss serves all
        self._stores: list[ShadowStore] = []
        self._claims: list[Claim] = []
        self._inflight = 0  # bytes reserved and not yet committed
        self._leaving = 0  # bytes of dropped stores that are still on disk
        self._released: deque[ShadowStore] = deque()
        self._doomed: list[ShadowStore] = []
        self._reasons: list[str] = []  # of losses that are not in the log yet

    # The lock.

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        doomed: list[ShadowStore] = []
        reasons: list[str] = []
        if self._depth == 1:
            while self._released:
                store = self._released.popleft()
                store.living = False
                if store not in self._stores and not store.dropped:  # its snapshot never began
                    store.close()
                self._prune()
            if self._doomed:
                doomed, self._doomed = self._doomed, []
            if self._reasons:
                reasons, self._reasons = self._reasons, []
        self._depth -= 1
        self._lock.release()
        if doomed:
            self._sweep(doomed)
        for reason in reasons:
            _log.warning("a snapshot of %s is lost: %s", self._name, reason)

    def _wait(self) -> None:
        self._depth = 0
        try:
            self._changed.wait()
        finally:
            self._depth = 1

    # Writing.

    def claim(self, first: int, count: int) -> Claim | None:
        """Take on what must be saved before a range is written; waits for what others are saving.

        Returns:
            A claim, to be given back by `finish` whatever happens; or None when nothing is missing.
        """
        with self:
            while True:
                missing = self._missing(first, count)
                if not missing:
                    return None
                mine = missing
                for other in self._claims:
                    ahead = other.first - first
                    if ahead < count:
                        mine &= ~(other.mask << ahead if ahead >= 0 else other.mask >> -ahead)
                if mine:
                    claim = Claim(self._newest(), first, mine)
                    claim.store.pins += 1
                    self._claims.append(claim)
                    return claim
                # Whoever claimed these blocks waits for nobody while it holds them: no circle.
                self._wait()

    def finish(self, claim: Claim) -> None:
        """Give a claim back, kept or not."""
        with self:
            self._claims.remove(claim)
            self._unpin(claim.store)
            self._changed.notify_all()

    def reserve(self, store: ShadowStore, length: int, blocks: int) -> int:
        """Set bytes aside before originals are written.

        Returns:
            The bytes set aside, for `commit` or `refund`.

        Raises:
            FullError: they do not fit.
        """
        with self:
            while True:
                cost = length + blocks * BLOCK_OVERHEAD
                once = 0 if store.charged or store.dropped else STORE_OVERHEAD
                if self.used + once + cost <= self.limit:
                    store.charged += once
                    self._inflight += cost
                    return cost
                if not self._leaving:
                    raise FullError(self.epoch)
                self._wait()  # somebody is giving space back at this moment

    def commit(self, claim: Claim, saved: int, zero: int, cost: int) -> bool:
        """Originals are in their store: from now on they are found there.

        Args:
            claim: Whose blocks.
            saved: Which of them, as a mask.
            zero: Those that are zero and were not written.
            cost: What `reserve` set aside.

        Returns:
            Whether the store is still wanted.
        """
        store = claim.store
        measured = store.measure()
        with self:
            if not store.dropped:
                self._inflight -= cost
                store.charged += cost
                store.measured = measured
                store.saved.set(claim.first, saved)
                if zero:
                    store.zero.set(claim.first, zero)
                return True
        self.refund(store, cost)
        return False

    def refund(self, store: ShadowStore, cost: int) -> None:
        """Nothing came of a reservation, though some bytes may have reached the disk."""
        if store.dropped:
            store.empty()
        measured = store.measure()
        with self:
            self._inflight -= cost
            if not store.dropped:
                store.measured = measured
            self._changed.notify_all()

    def _missing(self, first: int, count: int) -> int:
        """Blocks that the newest living snapshot would lose by a write."""
        missing, living = full(count), False
        for store in reversed(self._stores):
            missing &= ~store.saved.get(first, count)
            if store.living:
                living = True
                break
        return missing if living else 0

    def _newest(self) -> ShadowStore:
        return next(store for store in reversed(self._stores) if store.living)

    # Reading.

    def plan(self, store: ShadowStore, first: int, count: int, wanted: int, *, pin: bool) -> Plan:
        """Where the blocks in ``wanted`` of a snapshot lie now.

        Args:
            store: The snapshot's own store, in the chain unless the snapshot is lost.
            first: First block of the range.
            count: Its length in blocks.
            wanted: Which of them.
            pin: Whether the stores are about to be read; then `unpin` must follow.
        """
        zero = 0
        found: list[tuple[ShadowStore, int]] = []
        with self:
            if not store.dropped:
                for at in range(self._stores.index(store), len(self._stores)):
                    newer = self._stores[at]
                    here = wanted and newer.saved.get(first, count) & wanted
                    if not here:
                        continue
                    wanted &= ~here
                    blank = newer.zero.get(first, count) & here
                    zero |= blank
                    if here != blank:
                        found.append((newer, here & ~blank))
                        newer.pins += pin
            return Plan(tuple(found), zero, wanted)

    def unpin(self, plan: Plan) -> None:
        """The stores of a plan are no longer read."""
        if plan.stores:
            with self:
                for store, _ in plan.stores:
                    self._unpin(store)

    def _unpin(self, store: ShadowStore) -> None:
        store.pins -= 1
        if store.emptied and not store.pins:
            store.close()

    # Coming and going.

    def add(self, store: ShadowStore) -> None:
        """A new newest snapshot begins."""
        with self:
            store.living = True
            self._stores.append(store)
            if self._ended:
                self._note([store], self._ended)
                self._prune()

    def release(self, store: ShadowStore) -> None:
        """A snapshot is no longer read."""
        self._released.append(store)
        with self:
            pass  # leaving does it

    def make_room(self, seen: int, reason: str) -> None:
        """Give up the oldest snapshot, unless room was made since ``seen``."""
        with self._room, self:
            if self.epoch == seen:
                self._note(self._stores[:1], reason)
                self._prune()

    def lose_lacking(self, first: int, mask: int, reason: str) -> None:
        """Give up every snapshot that would need the unsaved originals of ``mask``."""
        count = mask.bit_length()
        with self:
            victims = []
            for store in reversed(self._stores):
                mask &= ~store.saved.get(first, count)
                if not mask:
                    break
                victims.append(store)
            self._note(victims, reason)
            self._prune()

    def end(self, reason: str) -> None:
        """Give up every snapshot, those that begin later too."""
        with self:
            self._ended = reason
            self._note(self._stores, reason)
            self._prune()

    def _note(self, stores: Iterable[ShadowStore], reason: str) -> None:
        for store in stores:
            if store.living:
                store.living = False
                store.lost = reason
                self._reasons.append(reason)

    def _prune(self) -> None:
        """Drop the stores that no living snapshot needs: those before the oldest one."""
        while self._stores and not self._stores[0].living:
            store = self._stores.pop(0)
            store.dropped = True
            store.measured = store.usage  # as it leaves the budget when it is off the disk
            self._leaving += store.measured
            self._doomed.append(store)

    def _sweep(self, doomed: list[ShadowStore]) -> None:
        try:
            for store in doomed:
                store.empty()
        finally:  # Ctrl-C ends a truncation: writers wait for this, and what is closed is empty, too
            with self:
                for store in doomed:
                    self._leaving -= store.measured
                    store.emptied = True
                    if not store.pins:
                        store.close()
                self.epoch += 1
                self._changed.notify_all()

    @property
    def used(self) -> int:
        """Bytes on disk to account for, reserved ones included."""
        with self:
            return self._inflight + self._leaving + sum(store.usage for store in self._stores)

    @property
    def active(self) -> bool:
        """Whether any snapshot lives; none can begin while a write runs."""
        return bool(self._stores)
