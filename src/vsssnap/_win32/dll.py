"""The libraries of Windows, each opened at its first use.

Everything that calls Windows takes a `System`; `current` is the one of this process.  On other
systems there is one only while a fake is lent (`vsssnap.testing.fake_vss`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

from vsssnap._win32 import layout
from vsssnap._win32._ffi import ffi
from vsssnap.errors import ProviderUnavailableError

if TYPE_CHECKING:
    from vsssnap._win32.protocols import Advapi32, Kernel32, Ole32, Oleaut32, Vssapi, Wevtapi


class System(Protocol):
    """The libraries, and the last error of the calling thread."""

    @property
    def kernel32(self) -> Kernel32: ...
    @property
    def advapi32(self) -> Advapi32: ...
    @property
    def ole32(self) -> Ole32: ...
    @property
    def oleaut32(self) -> Oleaut32: ...
    @property
    def vssapi(self) -> Vssapi: ...
    @property
    def wevtapi(self) -> Wevtapi: ...

    def last_error(self) -> int:
        """GetLastError of the call that this thread made last."""


def _open(name: str) -> Any:  # noqa: ANN401 - a library; the callers name its type
    try:
        return ffi.dlopen(name)
    except OSError as exc:
        raise ProviderUnavailableError(
            f"{name} cannot be loaded: {exc}",
            reasons={"vss": f"{name} cannot be loaded"},
            hint="Windows PE and some containers lack it",
        ) from exc


class WindowsSystem:
    """The libraries of this Windows."""

    @functools.cached_property
    def kernel32(self) -> Kernel32:
        """kernel32.dll."""
        return cast("Kernel32", _open("kernel32.dll"))

    @functools.cached_property
    def advapi32(self) -> Advapi32:
        """advapi32.dll."""
        return cast("Advapi32", _open("advapi32.dll"))

    @functools.cached_property
    def ole32(self) -> Ole32:
        """ole32.dll."""
        return cast("Ole32", _open("ole32.dll"))

    @functools.cached_property
    def oleaut32(self) -> Oleaut32:
        """oleaut32.dll."""
        return cast("Oleaut32", _open("oleaut32.dll"))

    @functools.cached_property
    def vssapi(self) -> Vssapi:
        """vssapi.dll, if what is passed to it has the size it should have."""
        layout.check()
        return cast("Vssapi", _open("vssapi.dll"))

    @functools.cached_property
    def wevtapi(self) -> Wevtapi:
        """wevtapi.dll."""
        return cast("Wevtapi", _open("wevtapi.dll"))

    def last_error(self) -> int:
        """What cffi kept of GetLastError right after the call."""
        if sys.platform == "win32":
            return int(ffi.getwinerror()[0])
        raise AssertionError("no Windows")


_windows: System | None = WindowsSystem() if sys.platform == "win32" else None
_lent: list[System] = []


def current() -> System | None:
    """The system to call: a lent one, else that of this Windows, else None."""
    return _lent[-1] if _lent else _windows


def windows() -> System:
    """This Windows, also while another system is lent: for files that are this system's own."""
    assert _windows is not None  # noqa: S101 - only code of Windows alone asks
    return _windows


@contextmanager
def lent(system: System) -> Iterator[None]:
    """Have all of the process call this system for a while."""
    _lent.append(system)
    try:
        yield
    finally:
        _lent.remove(system)
