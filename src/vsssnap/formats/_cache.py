"""A cache bounded by bytes, shared by the threads of a reader."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any


class ByteCache:
    """Least recently used out first.  Thread-safe; values must be immutable.

    Two threads that miss the same key both load it: that costs a read now and then and saves
    every hit from waiting for somebody else's disk.
    """

    __slots__ = ("_items", "_lock", "_most", "used")

    def __init__(self, most: int) -> None:
        """Hold at most ``most`` bytes; an item above a quarter of it is never kept."""
        self._most = most
        self._items: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.used = 0

    def get(self, key: Any) -> Any:  # noqa: ANN401 - any hashable and what was put under it
        """What was put under ``key``, or None."""
        with self._lock:
            item = self._items.get(key)
            if item is None:
                return None
            self._items.move_to_end(key)
            return item[0]

    def put(self, key: Any, value: Any, size: int) -> None:  # noqa: ANN401 - see `get`
        """Keep ``value``, which takes ``size`` bytes."""
        if size > self._most // 4:
            return
        with self._lock:
            old = self._items.pop(key, None)
            if old is not None:
                self.used -= old[1]
            self._items[key] = (value, size)
            self.used += size
            while self.used > self._most:
                _, (_, gone) = self._items.popitem(last=False)
                self.used -= gone

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._items.clear()
            self.used = 0
