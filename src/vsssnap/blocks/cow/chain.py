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

The lock can be entered again by its own thread: a forgotten snapshot is released by the garbage
collector, also in here.  Such a nested entry leaves a note, which the outer one acts on at its end.

Ctrl-C comes after any call and where any function begins, also between a method that takes
something and whoever it is given to.  So the lock is entered by itself, not by a method of ours;
what must not be forgotten stays where the next to leave finds it; whoever waits looks again.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

from vsssnap.blocks.cow.bitmap import full
from vsssnap.blocks.cow.claims import Claim, FullError, Plan
from vsssnap.blocks.cow.store import BLOCK_OVERHEAD, STORE_OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vsssnap.blocks.cow.store import ShadowStore

_P = ParamSpec("_P")
_R = TypeVar("_R")

_log = logging.getLogger("vsssnap.cow")
_LOOK: Final = 1.0  # seconds after which whoever waits looks again: Ctrl-C may have lost a notice


def _inside(method: Callable[Concatenate[Chain, _P], _R]) -> Callable[Concatenate[Chain, _P], _R]:
    """Run a method of `Chain` under its lock; what it left to do is done after."""

    @functools.wraps(method)
    def entered(self: Chain, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            with self._lock:
                self._depth += 1
                try:
                    result = method(self, *args, **kwargs)
                finally:
                    self._depth -= 1
        finally:
            if self._released or self._doomed or self._reasons:
                self._settle()
        return result

    return entered


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
        self._doomed: list[ShadowStore] = []  # dropped, and not off the disk yet
        self._reasons: deque[str] = deque()  # of losses that are not in the log yet

    # The lock.

    def _settle(self) -> None:
        """Do what was left to whoever leaves the lock last."""
        with self._lock:
            if self._depth:
                return  # inside it still, in this thread
            self._depth = 1
            try:
                while self._released:
                    store = self._released[0]
                    store.living = False
                    if store not in self._stores and not store.dropped:  # its snapshot never began
                        store.close()
                    self._prune()
                    self._released.popleft()
            finally:
                self._depth = 0
        while self._doomed:
            self._sweep()
        with contextlib.suppress(IndexError):  # another thread was faster
            while self._reasons:
                _log.warning("a snapshot of %s is lost: %s", self._name, self._reasons.popleft())

    def _wait(self) -> None:
        self._depth = 0
        try:
            self._changed.wait(_LOOK)
        finally:
            self._depth = 1

    # Writing.

    @_inside
    def claim(self, first: int, count: int, held: list[Claim]) -> bool:
        """Take on what must be saved before a range is written; waits for what others are saving.

        Args:
            first: First block of the range.
            count: Its length in blocks.
            held: Gets the claim, to be given to `finish` whatever happens here or later.

        Returns:
            Whether anything is missing.
        """
        while True:
            missing = self._missing(first, count)
            if not missing:
                return False
            mine = missing
            for other in self._claims:
                ahead = other.first - first
                if ahead < count:
                    mine &= ~(other.mask << ahead if ahead >= 0 else other.mask >> -ahead)
            if mine:
                newest = next(store for store in reversed(self._stores) if store.living)
                claim = Claim(newest, first, mine, [])
                held.append(claim)
                claim.store.pins += 1
                self._claims.append(claim)
                return True
            # Whoever claimed these blocks waits for nobody while it holds them: no circle.
            self._wait()

    @_inside
    def finish(self, held: list[Claim]) -> None:
        """Give claims back, kept or not.  Idempotent."""
        for claim in held:
            self._give_back(claim)
            if claim in self._claims:
                claim.store.pins -= 1
                self._claims.remove(claim)
            self._close_unused(claim.store)
        held.clear()
        self._changed.notify_all()

    def reserve(self, claim: Claim, length: int, blocks: int) -> None:
        """Set bytes aside before originals are written, until `commit`, `refund` or `finish`.

        Raises:
            FullError: they do not fit.
        """
        while not self._reserve(claim, length + blocks * BLOCK_OVERHEAD):
            pass

    @_inside
    def _reserve(self, claim: Claim, cost: int) -> bool:
        store = claim.store
        once = 0 if store.charged or store.dropped else STORE_OVERHEAD
        if self.used + once + cost <= self.limit:
            store.charged += once
            self._inflight += cost
            claim.reserved.append(cost)
            return True
        if not self._leaving:
            raise FullError(self.epoch)
        self._wait()  # somebody is giving space back at this moment
        return False

    def commit(self, claim: Claim, saved: int, zero: int) -> bool:
        """Originals are in their store: from now on they are found there.

        Args:
            claim: Whose blocks; what is set aside for it is used up.
            saved: Which of them, as a mask.
            zero: Those that are zero and were not written.

        Returns:
            Whether the store is still wanted.
        """
        if self._commit(claim, saved, zero, claim.store.measure()):
            return True
        self.refund(claim)
        return False

    @_inside
    def _commit(self, claim: Claim, saved: int, zero: int, measured: int) -> bool:
        store = claim.store
        if store.dropped:
            return False
        store.charged += self._give_back(claim)
        store.measured = measured
        store.saved.set(claim.first, saved)
        if zero:
            store.zero.set(claim.first, zero)
        return True

    def refund(self, claim: Claim) -> None:
        """Nothing came of what was set aside, though some bytes may have reached the disk."""
        if claim.store.dropped:
            claim.store.empty()
        self._refund(claim, claim.store.measure())

    @_inside
    def _refund(self, claim: Claim, measured: int) -> None:
        self._give_back(claim)
        if not claim.store.dropped:
            claim.store.measured = measured
        self._changed.notify_all()

    def _give_back(self, claim: Claim) -> int:
        cost = sum(claim.reserved)
        self._inflight -= cost
        claim.reserved.clear()
        return cost

    def _missing(self, first: int, count: int) -> int:
        """Blocks that the newest living snapshot would lose by a write."""
        missing, living = full(count), False
        for store in reversed(self._stores):
            missing &= ~store.saved.get(first, count)
            if store.living:
                living = True
                break
        return missing if living else 0

    # Reading.

    @_inside
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

    @_inside
    def unpin(self, plan: Plan) -> None:
        """The stores of a plan are no longer read."""
        for store, _ in plan.stores:
            store.pins -= 1
            self._close_unused(store)

    def _close_unused(self, store: ShadowStore) -> None:
        if store.emptied and not store.pins:
            store.close()

    # Coming and going.

    @_inside
    def add(self, store: ShadowStore) -> None:
        """A new newest snapshot begins."""
        store.living = True
        self._stores.append(store)
        if self._ended:
            self._note([store], self._ended)
            self._prune()

    def release(self, store: ShadowStore) -> None:
        """A snapshot is no longer read."""
        self._released.append(store)
        self._settle()

    def make_room(self, seen: int, reason: str) -> None:
        """Give up the oldest snapshot, unless room was made since ``seen``."""
        with self._room:
            self._make_room(seen, reason)

    @_inside
    def _make_room(self, seen: int, reason: str) -> None:
        if self.epoch == seen:
            self._note(self._stores[:1], reason)
            self._prune()

    @_inside
    def lose_lacking(self, first: int, mask: int, reason: str) -> None:
        """Give up every snapshot that would need the unsaved originals of ``mask``."""
        count = mask.bit_length()
        victims = []
        for store in reversed(self._stores):
            mask &= ~store.saved.get(first, count)
            if not mask:
                break
            victims.append(store)
        self._note(victims, reason)
        self._prune()

    @_inside
    def end(self, reason: str) -> None:
        """Give up every snapshot, those that begin later too."""
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
            store = self._stores[0]
            if not store.dropped:
                store.measured = store.usage  # as it leaves the budget when it is off the disk
                store.dropped = True
                self._leaving += store.measured
                self._doomed.append(store)
            del self._stores[0]

    def _sweep(self) -> None:
        """Give the space of one dropped store back; two threads may come with the same."""
        store: ShadowStore | None = None
        try:
            with self._lock:
                if not self._doomed:
                    return
                store = self._doomed[0]
                store.pins += 1  # so that it is not closed under either
            store.empty()
        finally:  # Ctrl-C ends a truncation: writers wait for this, and what is closed is empty, too
            with self._lock:
                if store is not None:
                    store.pins -= 1
                    store.emptied = True
                    self._close_unused(store)
                    if store in self._doomed:
                        self._leaving -= store.measured
                        self.epoch += 1
                        self._doomed.remove(store)
                self._changed.notify_all()

    @property
    @_inside
    def used(self) -> int:
        """Bytes on disk to account for, reserved ones included."""
        return self._inflight + self._leaving + sum(store.usage for store in self._stores)

    @property
    def active(self) -> bool:
        """Whether any snapshot lives; none can begin while a write runs."""
        return bool(self._stores)
