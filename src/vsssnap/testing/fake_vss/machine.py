"""A machine with VSS, in this process and on any system."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from vsssnap._win32 import dll
from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import SnapshotState
from vsssnap._win32.guids import SYSTEM_PROVIDER
from vsssnap.errors import UsageError
from vsssnap.testing.fake_vss import objects
from vsssnap.testing.fake_vss.devices import Devices, Memory
from vsssnap.testing.fake_vss.faults import FakeFaults
from vsssnap.testing.fake_vss.ledger import Ledger
from vsssnap.testing.fake_vss.libraries import Com, Names, Rights, library
from vsssnap.testing.fake_vss.parts import FakeShadow, FakeVolume, FakeWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from vsssnap.testing.fake_vss.objects import FakeObject
    from vsssnap.testing.fake_vss.requester import FakeBackupComponents

CData = Any


class FakeVss:
    r"""A machine whose VSS keeps to the documentation, and fails when it is told to.

    ::

        vss = FakeVss()
        c = vss.add_volume("C:\\", size=1 << 20)
        vss.add_writer("SqlServerWriter", fails_at="freeze", code=0x800423F2)
        with vss.installed():
            with Snapshot("C:") as s:
                ...
        vss.check()         # nothing leaked, nothing forbidden was done

    Everything in this process that calls Windows calls this machine while it is `installed`.

    Attributes:
        volumes: What is mounted.
        writers: What answers GatherWriterMetadata.
        shadows: The shadow copies that exist, by id.
        faults: What goes wrong.
        ledger: What is out, and what was forbidden.
        elevated: Whether the process has an administrator's token.
        wow64: Whether it is a 32-bit process.
        service: ``"disabled"`` or ``"missing"``; "" for the VSS service as it should be.
        hides: Names of interfaces that this Windows is too old to have.
        calls: Every COM call in order, ``"IVssBackupComponents::DoSnapshotSet"``.
        on_instant: Called when DoSnapshotSet freezes, after writers were.
    """

    word_size = 64

    def __init__(self) -> None:
        self.volumes: list[FakeVolume] = []
        self.writers: list[FakeWriter] = []
        self.shadows: dict[UUID, FakeShadow] = {}
        self.providers: list[UUID] = [SYSTEM_PROVIDER]
        self.faults = FakeFaults()
        self.ledger = Ledger()
        self.elevated = True
        self.wow64 = False
        self.service: Literal["", "disabled", "missing"] = ""
        self.security_set = False
        self.jammed = False
        self.hides: set[str] = set()
        self.calls: list[str] = []
        self.on_instant: Callable[[], None] | None = None
        self.most_read = 1 << 30
        self.most_bitmap = 1 << 30
        self.apartments: dict[int, tuple[int, int]] = {}
        self.requesters: list[FakeBackupComponents] = []
        self._creating: FakeObject | None = None
        self._others = 0
        self._numbers = itertools.count(1)
        self._handles: dict[int, tuple[str, object]] = {}
        self._next_handle = itertools.count(0x100, 4)
        self._errors = threading.local()
        self._lock = threading.RLock()
        self._bad: list[tuple[int, int, int]] = []

    # For tests.

    def add_volume(
        self,
        root: str,
        *more: str,
        size: int = 1 << 20,
        data: bytes = b"",
        **facts: Any,  # noqa: ANN401 - fields of FakeVolume
    ) -> FakeVolume:
        """Mount a volume.

        Args:
            root: Its drive or folder, with a backslash at its end.
            *more: Where else it is mounted.
            size: Bytes.
            data: Its first bytes.
            **facts: Other fields of `FakeVolume`.
        """
        content = bytearray(size)
        content[: len(data)] = data
        volume = FakeVolume((root, *more), content, **facts)
        if any(self.volume(name) is not None for name in volume.roots):
            raise UsageError(f"something is mounted at {root}")
        self.volumes.append(volume)
        return volume

    def add_writer(self, name: str, **facts: Any) -> FakeWriter:  # noqa: ANN401 - fields of FakeWriter
        """Start a writer; ``facts`` are other fields of `FakeWriter`."""
        writer = FakeWriter(name, **facts)
        self.writers.append(writer)
        return writer

    @contextmanager
    def installed(self) -> Iterator[FakeVss]:
        """Have this process call this machine instead of Windows."""
        with dll.lent(self):
            yield self

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Have another program create a shadow copy set meanwhile."""
        with self._lock:
            self._others += 1
        try:
            yield
        finally:
            with self._lock:
                self._others -= 1

    def lose(self, volume: FakeVolume, *, after: int | None = None) -> None:
        """Lose the shadow copies of a volume, now or after ``after`` more bytes were read of each."""
        for shadow in self.shadows.values():
            if shadow.volume is volume:
                shadow.lost, shadow.lose_after = after is None, after

    def bad_sectors(self, offset: int, length: int, code: int = 23) -> None:
        """Have reads that touch a range fail with a Win32 error (ERROR_CRC)."""
        self._bad.append((offset, length, code))

    def check(self) -> None:
        """Make sure that everything was given back and nothing forbidden was done.

        Raises:
            AssertionError: naming what is left and what was done.
        """
        left = self.ledger.outstanding()
        if self._handles:
            left["handles"] = len(self._handles)
        kept = [shadow for shadow in self.shadows.values() if not shadow.context & 0x8]
        if kept:
            left["shadow copies"] = len(kept)
        problems = [f"{count} {kind} not given back" for kind, count in left.items()]
        problems += self.ledger.violations
        if self.jammed:
            problems.append("VSS is left busy for every requester")
        if problems:
            raise AssertionError("; ".join(problems))

    def close(self) -> None:
        """Let the machine's memory go, when nothing calls it any more."""
        objects.forget(self)

    # The libraries.

    @functools.cached_property
    def kernel32(self) -> Any:  # noqa: ANN401 - a library
        """kernel32.dll."""
        made = SimpleNamespace()
        for part in (Rights(self), Names(self), Devices(self), Memory(self)):
            vars(made).update(vars(library("kernel32", part, self)))
        return made

    @functools.cached_property
    def advapi32(self) -> Any:  # noqa: ANN401 - a library
        """advapi32.dll."""
        return library("advapi32", Rights(self), self)

    @functools.cached_property
    def ole32(self) -> Any:  # noqa: ANN401 - a library
        """ole32.dll."""
        return library("ole32", Com(self), self)

    @functools.cached_property
    def oleaut32(self) -> Any:  # noqa: ANN401 - a library
        """oleaut32.dll."""
        return library("oleaut32", Com(self), self)

    @functools.cached_property
    def vssapi(self) -> Any:  # noqa: ANN401 - a library
        """vssapi.dll."""
        return library("vssapi", Com(self), self)

    def last_error(self) -> int:
        """GetLastError of the calling thread."""
        return int(getattr(self._errors, "code", 0))

    def set_error(self, code: int) -> None:
        """SetLastError."""
        self._errors.code = int(code)

    def refuse(self, code: int) -> int:
        """FALSE, with a last error."""
        self.set_error(code)
        return 0

    # For the parts of the machine.

    def entered(self, name: str) -> None:
        """A COM call begins."""
        self.calls.append(name)

    def check_apartment(self, name: str) -> None:
        """COM is called by threads that are in an apartment, and ours is the multithreaded one."""
        if threading.get_ident() not in self.apartments:
            self.ledger.forbid(f"{name} was called by a thread that is in no apartment")

    def volume(self, name: str) -> FakeVolume | None:
        """The volume of a root or GUID path, which ends with a backslash."""
        lower = name.lower()
        for volume in self.volumes:
            if lower in (volume.guid_path.lower(), *(root.lower() for root in volume.roots)):
                return volume
        return None

    def enter_set(self, requester: FakeObject) -> bool:
        """Begin a set, if nobody creates one."""
        with self._lock:
            if self.jammed or self._others or self._creating not in (None, requester):
                return False
            self._creating = requester
            return True

    def leave_set(self, requester: FakeObject) -> None:
        """A set is created, or given up."""
        with self._lock:
            if self._creating is requester:
                self._creating = None

    def instant(self) -> None:
        """Writers are frozen."""
        if self.on_instant is not None:
            self.on_instant()

    def next_number(self) -> int:
        """The N of a new HarddiskVolumeShadowCopyN."""
        return next(self._numbers)

    def drop(self, shadow: FakeShadow) -> None:
        """A shadow copy is deleted."""
        shadow.lost, shadow.state = True, SnapshotState.VSS_SS_DELETED
        self.shadows.pop(shadow.id, None)

    def bstr(self, text: str) -> CData:
        """A string that comes back through SysFreeString."""
        made = ffi.new("WCHAR[]", text)
        self.ledger.lend("BSTR", int(ffi.cast("uintptr_t", made)), made, len(made) - 1)
        return made

    def fill(self, out: CData, shadow: FakeShadow) -> None:
        """Fill a VSS_SNAPSHOT_PROP."""
        objects.put_id(ffi.addressof(out, "m_SnapshotId"), shadow.id)
        objects.put_id(ffi.addressof(out, "m_SnapshotSetId"), shadow.set_id)
        objects.put_id(ffi.addressof(out, "m_ProviderId"), shadow.provider_id)
        out.m_lSnapshotsCount = sum(known.set_id == shadow.set_id for known in self.shadows.values())
        for field, text in (
            ("m_pwszSnapshotDeviceObject", shadow.device),
            ("m_pwszOriginalVolumeName", shadow.volume.guid_path),
            ("m_pwszOriginatingMachine", "fake"),
            ("m_pwszServiceMachine", "fake"),
        ):
            made = ffi.new("WCHAR[]", text)
            self.ledger.lend("snapshot strings", int(ffi.cast("uintptr_t", made)), made)
            setattr(out, field, made)
        out.m_lSnapshotAttributes = (shadow.context | 0x20000) & 0x7FFF_FFFF
        out.m_tsCreationTimestamp = shadow.timestamp
        out.m_eStatus = shadow.state

    def handle(self, kind: str, what: object = None) -> CData:
        """A new handle."""
        with self._lock:
            number = next(self._next_handle)
            self._handles[number] = (kind, what)
        return ffi.cast("HANDLE", number)

    def opened(self, handle: CData, kind: str) -> object:
        """What a handle stands for, or None."""
        found = self._handles.get(int(ffi.cast("uintptr_t", handle)))
        if found is None or found[0] != kind:
            self.ledger.forbid(f"{handle} is no open {kind}")
            return None
        return found[1]

    def close_handle(self, handle: CData, *kinds: str) -> int:
        """A handle comes back."""
        with self._lock:
            found = self._handles.pop(int(ffi.cast("uintptr_t", handle)), None)
        if found is None or found[0] not in kinds:
            self.ledger.forbid(f"{handle} was closed, and is no open {' or '.join(kinds)}")
            return self.refuse(6)
        return 1

    def read_error(self, shadow: FakeShadow, offset: int, length: int) -> int:
        """The error that a read of a shadow copy fails with, or 0."""
        with self._lock:
            if shadow.lose_after is not None:
                shadow.lose_after -= length
                shadow.lost = shadow.lost or shadow.lose_after < 0
        if shadow.lost:
            return 55  # ERROR_DEV_NOT_EXIST
        for start, count, code in self._bad:
            if offset < start + count and start < offset + length:
                return code
        return self.faults.code("ReadFile", "call") or 0
