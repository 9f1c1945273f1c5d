"""A machine with VSS, as tests see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vsssnap._win32 import dll
from vsssnap.errors import UsageError
from vsssnap.testing.fake_vss import objects
from vsssnap.testing.fake_vss.devices import OpenDevice
from vsssnap.testing.fake_vss.machine import Machine
from vsssnap.testing.fake_vss.parts import FakeDisk, FakeProvider, FakeVolume
from vsssnap.testing.fake_vss.writers import FakeWriter


class FakeVss(Machine):
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
        disks: What is plugged in.
        registry: Keys below HKEY_LOCAL_MACHINE, each with its values as lines of text.
        events: The System event log, the oldest first.
        writers: What answers GatherWriterMetadata.
        shadows: The shadow copies that exist, by id.
        faults: What goes wrong.
        ledger: What is out, and what was forbidden.
        providers: The VSS providers; the first is Windows' own.
        luns: Transportable shadow copies that wait in the disk array; give them to another machine, and
            its requesters can import them.
        server: Whether it is a Windows Server; others cannot revert, import or write back.
        makes_storage: Whether changing the size of shadow storage makes it: from Windows 7 on.
        elevated: Whether the process has an administrator's token.
        wow64: Whether it is a 32-bit process.
        service: ``"disabled"`` or ``"missing"``; "" for the VSS service as it should be.
        hides: Names of interfaces that this Windows is too old to have.
        home: A folder of this system for the account's own files, removed with the machine.
        environment: Variables in the paths of writers' files, by their names in capitals.
        calls: Every COM call in order, ``"IVssBackupComponents::DoSnapshotSet"``.
        on_instant: Called when DoSnapshotSet freezes, after writers were.
        most_read: Most bytes that one read of a device gives.
        most_bitmap: Most bytes of a cluster bitmap that it gives at once.
        most_reads: How many reads were under way at once, at most.
        gathered_reads: Reads end only once so many were under way at once.
    """

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

    def add_disk(self, number: int, *, size: int = 1 << 20, sector_size: int = 512) -> FakeDisk:
        """Plug a disk in."""
        disk = FakeDisk(number, bytearray(size), sector_size)
        self.disks.append(disk)
        return disk

    def add_provider(self, name: str, **facts: Any) -> FakeProvider:  # noqa: ANN401 - fields of FakeProvider
        """Install a VSS provider; ``facts`` are other fields of `FakeProvider`.

        One of hardware copies the volumes that have its id as their ``provider``.
        """
        provider = FakeProvider(name=name, **facts)
        self.providers.append(provider)
        return provider

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

    def reconnect(self, volume: FakeVolume) -> None:
        """Take a volume away for a moment: its shadow copies come back as other devices.

        Handles of them that are open fail for ever.
        """
        for shadow in self.shadows.values():
            if shadow.volume is volume:
                shadow.number = self.next_number()
        for opened in self.all_opened("device"):
            if isinstance(opened, OpenDevice) and opened.shadow is not None and opened.volume is volume:
                opened.stale = True

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
