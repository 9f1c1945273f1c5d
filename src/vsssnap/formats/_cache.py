"""A cache bounded by bytes, shared by the threads of a reader and by the images of a chain."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from typing import Any

_NUMBERS = itertools.count()
_LAST = 4  # values that are held before they are asked for a second time
_LAST_BYTES = 4 << 20  # and not more than these, or one
_REMEMBERED = 4096  # keys


class _Room:
    """What several caches hold together."""

    __slots__ = ("caches", "items", "lock", "most", "used")

    def __init__(self, most: int) -> None:
        self.most = most
        self.caches: list[ByteCache] = []
        self.items: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self.lock = threading.Lock()
        self.used = 0


class ByteCache:
    """Least recently used out first.  Thread-safe; values must be immutable.

    Two threads that miss the same key both load it: that costs a read now and then and saves
    every hit from waiting for somebody else's disk.
    """

    __slots__ = ("_number", "_room")

    def __init__(self, most: int) -> None:
        """Hold at most ``most`` bytes; an item above a quarter of it is never kept."""
        self._room = _Room(most)
        self._room.caches.append(self)
        self._number = next(_NUMBERS)

    def join(self, other: ByteCache) -> None:
        """Share the room of another cache from now on, and so do those that share this one's.

        Each keeps keys of its own.  Not while another thread uses them; what they hold is forgotten.
        """
        joining, room = self._room.caches, other._room
        if room is not self._room:
            for cache in joining:
                cache._room = room  # noqa: SLF001 - of this class
            room.caches += joining

    @property
    def used(self) -> int:
        """Bytes held, with those of the caches that share the room."""
        return self._room.used

    def get(self, key: Any) -> Any:  # noqa: ANN401 - any hashable and what was put under it
        """What was put under ``key``, or None."""
        room, key = self._room, (self._number, key)
        with room.lock:
            item = room.items.get(key)
            if item is None:
                return None
            room.items.move_to_end(key)
            return item[0]

    def put(self, key: Any, value: Any, size: int) -> None:  # noqa: ANN401 - see `get`
        """Keep ``value``, which takes ``size`` bytes."""
        room, key = self._room, (self._number, key)
        if size > room.most // 4:
            return
        with room.lock:
            old = room.items.pop(key, None)
            if old is not None:
                room.used -= old[1]
            room.items[key] = (value, size)
            room.used += size
            while room.used > room.most:
                _, (_, gone) = room.items.popitem(last=False)
                room.used -= gone

    def clear(self) -> None:
        """Forget everything, also what others keep in the same room."""
        room = self._room
        with room.lock:
            room.items.clear()
            room.used = 0


class SecondUse:
    """Keeps in a cache what is asked for a second time.  Thread-safe; for values that are long in memory.

    What is read at random is mostly asked for once.  To keep it would take fresh memory each time, which
    takes the system nearly as long as it takes to decode it; the few that came last go round in the same.
    Of those that went, the keys are remembered for a while, so that what is in use finds its way into the
    cache wherever it lies (Johnson and Shasha, "2Q: A Low Overhead High Performance Buffer Management
    Replacement Algorithm", VLDB 1994).
    """

    __slots__ = ("_cache", "_known", "_last", "_lock")

    def __init__(self, cache: ByteCache) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._last: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._known: OrderedDict[Any, None] = OrderedDict()

    def get(self, key: Any) -> Any:  # noqa: ANN401 - see `ByteCache`
        """What was put under ``key``, or None."""
        with self._lock:
            item = self._last.pop(key, None)
        if item is None:
            return self._cache.get(key)
        self._cache.put(key, *item)
        return item[0]

    def put(self, key: Any, value: Any, size: int) -> None:  # noqa: ANN401 - see `ByteCache`
        """A value that was made now, and takes ``size`` bytes."""
        with self._lock:
            again = key in self._known
            self._known[key] = None
            self._known.move_to_end(key)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
            if not again:
                self._last[key] = (value, size)
                while len(self._last) > 1 and (len(self._last) > _LAST or self._held() > _LAST_BYTES):
                    self._last.popitem(last=False)
        if again:
            self._cache.put(key, value, size)

    def _held(self) -> int:
        return sum(size for _, size in self._last.values())

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._last.clear()
            self._known.clear()
        self._cache.clear()
