"""What cannot be copied is refused by name, with the remedy, and nothing is left of the attempt.

Each row is one thing that people meet.  The remedy is looked for in the text of the error, for that is
what they see; what is left is counted by the fake machine (references, strings, handles, pages, shadow
copies), by the threads of this process, and by the files beside the image.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vsssnap import Consistency, Snapshot, _retries, save_image
from vsssnap._win32 import failures
from vsssnap._win32.constants import DriveType
from vsssnap.errors import (
    InsufficientStorageError,
    ProviderUnavailableError,
    SnapshotBusyError,
    SnapshotError,
    SnapshotLostError,
    SnapshotPermissionError,
    WriterFailedError,
)
from vsssnap.testing.fake_vss import FakeStorage, FakeVss
from waiting import until

SIZE = 1 << 20
NO_STORAGE = 0x8004231F
NOT_SUPPORTED = 0x8004230C
WRITER_TIMEOUT = 0x800423F2
WRITER_FAILED = 0x800423F4


@contextmanager
def as_it_is(machine: FakeVss) -> Iterator[None]:
    """A machine that is well."""
    del machine
    yield


def with_facts(**facts: object) -> Callable[[FakeVss], AbstractContextManager[None]]:
    """A machine with other facts."""

    @contextmanager
    def prepare(machine: FakeVss) -> Iterator[None]:
        for name, value in facts.items():
            assert hasattr(machine, name)
            setattr(machine, name, value)
        yield

    return prepare


def with_volume(root: str, **facts: object) -> Callable[[FakeVss], AbstractContextManager[None]]:
    """A machine with one more volume."""

    @contextmanager
    def prepare(machine: FakeVss) -> Iterator[None]:
        machine.add_volume(root, **facts)  # type: ignore[arg-type]
        yield

    return prepare


def with_failing_writer(code: int) -> Callable[[FakeVss], AbstractContextManager[None]]:
    """A machine whose writer fails when it should freeze."""

    @contextmanager
    def prepare(machine: FakeVss) -> Iterator[None]:
        machine.writers[0].fails_at, machine.writers[0].code = "freeze", code
        yield

    return prepare


@contextmanager
def with_full_storage(machine: FakeVss) -> Iterator[None]:
    """A machine that has no room for what a volume would change."""
    machine.volumes[0].storage = FakeStorage(maximum=512 << 20, allocated=512 << 20, used=511 << 20)
    machine.faults.fail("DoSnapshotSet", NO_STORAGE, where="async")
    yield


@dataclass(frozen=True)
class Row:
    """One thing that goes wrong.

    Attributes:
        prepare: Makes the machine so; a context, for what lasts as long as the attempt.
        error: What is raised.
        words: What its text says: what it is, and what to do.
        volume: Which volume is asked for.
        code: The HRESULT, where VSS was asked.
        arguments: Others of `Snapshot`.
        untouched: Whether VSS was not called at all.
        lost_after: Bytes after which the shadow copy is gone.
    """

    prepare: Callable[[FakeVss], AbstractContextManager[None]]
    error: type[SnapshotError]
    words: tuple[str, ...]
    volume: str = "C:"
    code: int | None = None
    arguments: Mapping[str, object] = field(default_factory=dict)
    untouched: bool = False
    lost_after: int | None = None


STRICT = {"require": Consistency.APPLICATION}
ROWS = {
    "not elevated": Row(
        with_facts(elevated=False), SnapshotPermissionError, ("Run as administrator",), untouched=True
    ),
    "32-bit Python": Row(
        with_facts(wow64=True), ProviderUnavailableError, ("32-bit", "install the 64-bit one"), untouched=True
    ),
    "service disabled": Row(
        with_facts(service="disabled"),
        ProviderUnavailableError,
        ("Volume Shadow Copy", "sc config VSS start= demand"),
        untouched=True,
    ),
    "unknown volume": Row(
        as_it_is,
        ProviderUnavailableError,
        ("Q: does not exist", "name a drive"),
        volume="Q:",
        untouched=True,
    ),
    "network drive": Row(
        with_volume("Z:\\", drive_type=DriveType.DRIVE_REMOTE),
        ProviderUnavailableError,
        ("Z: is a network drive", "run on the machine that has the volume"),
        volume="Z:",
        untouched=True,
    ),
    "network share": Row(
        as_it_is,
        ProviderUnavailableError,
        ("is a network share", "run on the machine that has the volume"),
        volume="\\\\server\\share",
        untouched=True,
    ),
    "FAT stick": Row(
        with_volume("E:\\", filesystem="FAT32", supported=False, drive_type=DriveType.DRIVE_REMOVABLE),
        ProviderUnavailableError,
        ("E:\\: no VSS provider", "VSS_E_VOLUME_NOT_SUPPORTED", "read it with open_device"),
        volume="E:",
    ),
    "a volume that a provider refuses": Row(
        with_volume("E:\\", supported=False),
        ProviderUnavailableError,
        ("E:\\: no VSS provider", "VSS_E_VOLUME_NOT_SUPPORTED", "read it with open_device"),
        volume="E:",
        code=NOT_SUPPORTED,
    ),
    "busy for ever": Row(
        FakeVss.busy,
        SnapshotBusyError,
        ("another program", "wait for the other backup", "restart the services"),
        code=0x80042316,
        arguments={"timeout": 2.0},
    ),
    "writer failed": Row(
        with_failing_writer(WRITER_FAILED),
        WriterFailedError,
        ("SqlServerWriter", "vssadmin list writers", "exclude it"),
        code=WRITER_FAILED,
        arguments=STRICT,
    ),
    "writer timed out": Row(
        with_failing_writer(WRITER_TIMEOUT),
        WriterFailedError,
        ("SqlServerWriter", "not done in time", "when the disks are less busy"),
        code=WRITER_TIMEOUT,
        arguments=STRICT,
    ),
    "shadow storage full": Row(
        with_full_storage,
        InsufficientStorageError,
        ("no room for shadow storage", "vssadmin resize shadowstorage", "511"),
        code=NO_STORAGE,
    ),
    "lost while it is read": Row(
        as_it_is, SnapshotLostError, ("C:\\ is gone", "volsnap"), lost_after=SIZE // 2
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_bad_input_is_named_with_its_remedy_and_leaves_nothing(
    fake_vss: FakeVss, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Row
) -> None:
    monkeypatch.setattr(failures, "RETRY_PAUSE", 0.01)
    monkeypatch.setattr(_retries, "_FIRST", 0.01)
    fake_vss.add_volume("C:\\", size=SIZE, data=bytes(range(1, 256)) * 4000)
    fake_vss.add_writer("SqlServerWriter")
    threads = threading.active_count()

    with row.prepare(fake_vss), pytest.raises(SnapshotError) as caught:  # noqa: PT012, SIM117
        with Snapshot(row.volume, provider="vss", **row.arguments) as s:  # type: ignore[arg-type]
            if row.lost_after is not None:
                fake_vss.lose(fake_vss.volumes[0], after=row.lost_after)
            save_image(s.open(), tmp_path / "c.vsnap")

    assert type(caught.value) is row.error
    assert row.code is None or caught.value.code == row.code
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert [words for words in row.words if words not in text] == [], text
    assert not row.untouched or not fake_vss.calls
    fake_vss.check()
    assert not fake_vss.shadows
    assert not list(tmp_path.iterdir())
    assert until(lambda: threading.active_count() <= threads)
