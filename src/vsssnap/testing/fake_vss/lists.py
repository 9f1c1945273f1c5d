"""`IVssEnumObject` and `IVssEnumMgmtObject`, as Microsoft documents them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vsssnap._win32.hresult import HResult
from vsssnap.testing.fake_vss.objects import FakeObject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vsssnap.testing.fake_vss.machine import Machine

CData = Any


class FakeList(FakeObject):
    """An enumerator; each item fills one structure.

    Attributes:
        next: Index of what `Next` gives first.
    """

    def __init__(self, machine: Machine, fill: Sequence[Callable[[CData], None]]) -> None:
        super().__init__(machine)
        self._all = list(fill)
        self.next = 0

    def Next(self, count: int, out: CData, fetched: CData) -> int:
        """S_FALSE if there are fewer than were asked for."""
        if not fetched or (count and not out):
            return HResult.E_POINTER
        given = self._all[self.next :][:count]
        self.next += len(given)
        for index, fill in enumerate(given):
            fill(out[index])
        fetched[0] = len(given)
        return HResult.S_OK if len(given) == count else HResult.S_FALSE

    def Skip(self, count: int) -> int:
        """S_FALSE if it leads behind the end."""
        left = len(self._all) - self.next
        self.next += min(count, left)
        return HResult.S_OK if count <= left else HResult.S_FALSE

    def Reset(self) -> int:
        """From the first again."""
        self.next = 0
        return HResult.S_OK

    def Clone(self, out: CData) -> int:
        """Another one that stands where this does."""
        if not out:
            return HResult.E_POINTER
        made = type(self)(self.machine, self._all)
        made.next = self.next
        made.give(out)
        return HResult.S_OK


class FakeEnumObject(FakeList):
    """Shadow copies or providers."""

    interface = title = "IVssEnumObject"
    answers: ClassVar[tuple[str, ...]] = ("IVssEnumObject",)


class FakeEnumMgmtObject(FakeList):
    """Volumes or shadow storage."""

    interface = title = "IVssEnumMgmtObject"
    answers: ClassVar[tuple[str, ...]] = ("IVssEnumMgmtObject",)
