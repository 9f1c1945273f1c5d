"""A machine with VSS, in this process and on any system."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import threading
import uuid
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import ObjectType, ProviderType, SnapshotState
from vsssnap._win32.guids import SYSTEM_PROVIDER
from vsssnap.testing.fake_vss import objects
from vsssnap.testing.fake_vss.devices import Devices
from vsssnap.testing.fake_vss.event_log import EventLog
from vsssnap.testing.fake_vss.faults import FakeFaults
from vsssnap.testing.fake_vss.files import Files, Memory, Registry
from vsssnap.testing.fake_vss.ledger import Ledger
from vsssnap.testing.fake_vss.libraries import Com, Rights, library
from vsssnap.testing.fake_vss.names import Names
from vsssnap.testing.fake_vss.parts import FakeProvider
from vsssnap.testing.fake_vss.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from vsssnap.testing.fake_vss.event_log import FakeEvent
    from vsssnap.testing.fake_vss.objects import FakeObject
    from vsssnap.testing.fake_vss.parts import FakeDisk, FakeShadow, FakeVolume
    from vsssnap.testing.fake_vss.requester import FakeBackupComponents
    from vsssnap.testing.fake_vss.writers import FakeWriter

CData = Any


class Machine:
    """What the parts of the machine work on; `FakeVss` is what tests see."""

    def __init__(self) -> None:
        self.volumes: list[FakeVolume] = []
        self.disks: list[FakeDisk] = []
        self.registry: dict[str, dict[str, list[str]]] = {}
        self.events: list[FakeEvent] = []
        self.writers: list[FakeWriter] = []
        self.shadows: dict[UUID, FakeShadow] = {}
        self.luns: dict[UUID, FakeShadow] = {}
        self.providers: list[FakeProvider] = [
            FakeProvider(
                name="Fake Software Shadow Copy provider",
                kind=ProviderType.VSS_PROV_SYSTEM,
                version="1.0.0.7",
                id=SYSTEM_PROVIDER,
            )
        ]
        self.contexts: dict[UUID, int] = {}  # of providers
        self.server = True
        self.makes_storage = True
        self.faults = FakeFaults()
        self.ledger = Ledger()
        self.elevated = True
        self.wow64 = False
        self.service: Literal["", "disabled", "missing"] = ""
        self.security_set = False
        self.jammed = False
        self.hides: set[str] = set()
        # Made when something is put there, so that a process that is killed before leaves nothing.
        self.home = os.path.join(tempfile.gettempdir(), f"fake_vss-{uuid.uuid4().hex}")
        weakref.finalize(self, shutil.rmtree, self.home, ignore_errors=True)
        self.environment = {
            "SYSTEMROOT": "C:\\Windows",
            "SYSTEMDRIVE": "C:",
            "LOCALAPPDATA": self.home,
        }
        self.calls: list[str] = []
        self.on_instant: Callable[[], None] | None = None
        self.most_read = 1 << 30
        self.most_bitmap = 1 << 30
        self.most_reads = 0
        self.gathered_reads = 0
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
        rights, self.kernel32 = Rights(self), SimpleNamespace()
        pending = Pending(self)
        for part in (
            rights,
            Names(self, pending),
            pending,
            Devices(self, pending),
            Files(self, pending),
            Memory(self),
        ):
            vars(self.kernel32).update(vars(library("kernel32", part, self)))
        self.advapi32 = library("advapi32", rights, self)
        vars(self.advapi32).update(vars(library("advapi32", Registry(self), self)))
        self.wevtapi = library("wevtapi", EventLog(self), self)
        self.ole32, self.oleaut32, self.vssapi = (
            library(name, Com(self), self) for name in ("ole32", "oleaut32", "vssapi")
        )

    # GetLastError.

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

    def provider(self, wanted: UUID) -> FakeProvider:
        """A VSS provider; one that was unregistered is like one of its kind."""
        return next((one for one in self.providers if one.id == wanted), FakeProvider(name="gone"))

    def hardware(self) -> list[FakeProvider]:
        """The hardware providers."""
        return [one for one in self.providers if one.kind == ProviderType.VSS_PROV_HARDWARE]

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

    def task_text(self, text: str) -> CData:
        """A string that comes back through CoTaskMemFree."""
        made = ffi.new("WCHAR[]", text)
        self.ledger.lend("task memory", int(ffi.cast("uintptr_t", made)), made)
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
            ("m_pwszExposedName", shadow.exposed),
            ("m_pwszExposedPath", shadow.shared or ""),
        ):
            if not text:
                continue
            made = ffi.new("WCHAR[]", text)
            self.ledger.lend("snapshot strings", int(ffi.cast("uintptr_t", made)), made)
            setattr(out, field, made)
        exposed = 0 if not shadow.exposed else 0x100000 if shadow.shared is None else 0x200000
        # Hardware gives whole copies (PLEX), software what differs (DIFFERENTIAL).
        made = 0x10000 | 0x40000 if shadow.by_hardware else 0x20000
        made |= 0x80000 if shadow.imported else 0
        out.m_lSnapshotAttributes = (shadow.context | made | exposed) & 0x7FFF_FFFF
        out.m_tsCreationTimestamp = shadow.timestamp
        out.m_eStatus = shadow.state

    def lister(self, shadow: FakeShadow) -> Callable[[CData], None]:
        """What fills one structure of an enumerator."""

        def fill(to: CData) -> None:
            to.Type = ObjectType.VSS_OBJECT_SNAPSHOT
            self.fill(ffi.addressof(to.Obj, "Snap"), shadow)

        return fill

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

    def handle_of(self, handle: CData) -> object:
        """What a handle of any kind stands for, or None."""
        return self._handles.get(int(ffi.cast("uintptr_t", handle)), ("", None))[1]

    def all_opened(self, kind: str) -> list[object]:
        """What the handles of a kind stand for."""
        with self._lock:
            return [what for name, what in self._handles.values() if name == kind]

    def close_handle(self, handle: CData, *kinds: str) -> int:
        """A handle comes back."""
        with self._lock:
            found = self._handles.pop(int(ffi.cast("uintptr_t", handle)), None)
        if found is None or found[0] not in kinds:
            self.ledger.forbid(f"{handle} was closed, and is no open {' or '.join(kinds)}")
            return self.refuse(6)
        return 1

    def read_error(self, shadow: FakeShadow | None, offset: int, length: int) -> int:
        """The error that a read of a device fails with, or 0."""
        if shadow is not None:
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
