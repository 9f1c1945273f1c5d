"""Shadow copies through the public interface, on a fake machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from vsssnap import (
    Consistency,
    Extent,
    ExtentKind,
    Snapshot,
    __version__,
    _deadline,
    _held,
    list_snapshots,
    open_image,
    save_image,
)
from vsssnap.errors import (
    InsufficientStorageError,
    ProviderUnavailableError,
    SnapshotError,
    SnapshotLostError,
    SnapshotPermissionError,
    SnapshotTimeoutError,
    UsageError,
    VssSnapError,
)
from vsssnap.providers import SnapshotRequest, available, by_name
from vsssnap.providers.vss.clusters import ClusterMap
from vsssnap.testing import check_reader
from vsssnap.testing.fake_vss import FakeStorage, FakeVolume, FakeVss
from vsssnap.vss import VssOptions
from waiting import Late, until


@pytest.fixture
def volume(fake_vss: FakeVss) -> FakeVolume:
    pattern = bytes(range(256)) * 4096
    return fake_vss.add_volume("C:\\", size=1 << 20, data=pattern, free=((16, 8), (100, 1)))


def probe(*volumes: object, **more: object) -> str:
    request = SnapshotRequest(volumes=volumes, require=Consistency.CRASH, **more)  # type: ignore[arg-type]
    provider = by_name("vss")
    return provider.unusable() or provider.probe(request).reason


@pytest.mark.posix("this is Windows")
def test_where_there_is_no_windows_it_says_so() -> None:
    assert "Windows" in available()["vss"]
    assert "Windows" in probe("C:")


def test_a_reader_sees_the_volume_as_it_was(fake_vss: FakeVss, volume: FakeVolume) -> None:
    before = bytes(volume.data)
    with Snapshot("C:") as s, s.open() as disk:
        volume.pwrite(b"after!" * 1000, 0)
        assert disk.pread(6000, 0) == before[:6000]
        assert disk.size == len(before)
        assert s.provider == "vss"


def test_free_clusters_are_holes_that_read_as_zeros(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("C:") as s, s.open() as disk:
        volume.pwrite(b"\xff" * 4096, 16 * 4096)  # into a cluster that VSS does not preserve
        assert list(disk.extents()) == [
            Extent(0, 16 * 4096, ExtentKind.DATA),
            Extent(16 * 4096, 8 * 4096, ExtentKind.HOLE),
            Extent(24 * 4096, 76 * 4096, ExtentKind.DATA),
            Extent(100 * 4096, 4096, ExtentKind.HOLE),
            Extent(101 * 4096, 155 * 4096, ExtentKind.DATA),
        ]
        assert disk.pread(4096, 16 * 4096) == bytes(4096)


def test_the_reader_keeps_the_contract(fake_vss: FakeVss, volume: FakeVolume) -> None:
    expected = bytearray(volume.data)
    for first, count in volume.free:
        expected[first * 4096 : (first + count) * 4096] = bytes(count * 4096)
    with Snapshot("C:") as s:
        check_reader(s.open, bytes(expected))


def test_two_reads_agree_while_the_volume_is_written(fake_vss: FakeVss, volume: FakeVolume) -> None:
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            volume.pwrite(number.to_bytes(8, "little") * 512, number * 4096 % len(volume.data))

    with Snapshot("C:") as s, s.open() as disk:
        other = threading.Thread(target=churn)
        other.start()
        try:
            digests = {hashlib.sha256(disk.pread(disk.size, 0)).digest() for _ in range(20)}
        finally:
            stop.set()
            other.join()
    assert len(digests) == 1


def test_an_image_keeps_what_a_restore_needs(fake_vss: FakeVss, volume: FakeVolume, tmp_path: Path) -> None:
    writer = fake_vss.add_writer("SqlServerWriter")
    target = tmp_path / "c.vsnap"
    with Snapshot("C:") as s:
        report = save_image(s.open(), target)
    assert report.hole == 9 * 4096
    with open_image(target) as image:
        metadata = image.metadata
        assert metadata.volume == "C:"
        assert metadata.filesystem == "NTFS"
        assert metadata.consistency is Consistency.APPLICATION
        assert [found.name for found in metadata.writers] == ["SqlServerWriter"]
        assert metadata.documents[f"vss/writers/{writer.instance_id}.xml"] == writer.document.encode()
        assert metadata.documents["vss/backup-components.xml"].startswith(b"<BACKUP_COMPONENTS")
        (shadow,) = json.loads(metadata.documents["vss/shadow-copies.json"])
        assert shadow["volume"] == metadata.device == volume.guid_path
        assert shadow["set_id"] == metadata.snapshot_id
        assert shadow["attributes"] == ["differential"]
        assert shadow["provider_id"] == "b5946137-7b9f-4925-af80-51abd60b20d5"
        assert metadata.created is not None
        assert metadata.created.isoformat() == shadow["created"]
        assert shadow["filesystem"] == "NTFS"
        assert shadow["serial_number"] == volume.id.int & 0xFFFF_FFFF
        assert shadow["bitlocker"] is None, "no disk beneath it can be asked"
        assert shadow["library"] == f"vsssnap {__version__}"


def test_several_volumes_are_of_one_instant(fake_vss: FakeVss, volume: FakeVolume) -> None:
    other = fake_vss.add_volume("D:\\", "C:\\data\\", data=b"before")

    def write() -> None:
        volume.pwrite(b"frozen", 0)
        other.pwrite(b"frozen", 0)

    fake_vss.on_instant = write
    with Snapshot("C:", "d:", "C:/data", other.guid_path) as s:
        assert list(s.volumes) == ["C:", "d:", "C:/data", other.guid_path]
        assert len({found.device for found in s.volumes.values()}) == 2
        assert s.volumes["d:"].mount_point == "D:\\"
        for name in s.volumes:
            assert s.open(name).pread(6, 0) == b"frozen"
    assert sum(call.endswith("AddToSnapshotSet") for call in fake_vss.calls) == 2


def test_sixty_four_volumes_are_the_most(fake_vss: FakeVss) -> None:
    roots = [f"C:\\m{number}\\" for number in range(65)]
    for root in roots:
        fake_vss.add_volume(root, size=8192)
    with Snapshot(*roots[:64]) as s:
        assert len(s.volumes) == 64
    assert "64" in probe(*roots)


# Losing it.


def test_a_lost_shadow_copy_is_told_from_a_bad_disk(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("C:") as s, s.open() as disk:
        fake_vss.lose(volume)
        with pytest.raises(SnapshotLostError, match="gone"):
            disk.pread(4096, 0)
        with pytest.raises(SnapshotLostError):
            disk.confirm()
        with pytest.raises(SnapshotLostError):
            s.open()


def test_an_error_about_room_says_how_full_shadow_storage_is(fake_vss: FakeVss, volume: FakeVolume) -> None:
    volume.storage = FakeStorage(maximum=512 << 20, allocated=512 << 20, used=511 << 20)
    with Snapshot("C:") as s, s.open() as disk:
        fake_vss.lose(volume)
        with pytest.raises(SnapshotLostError) as caught:
            disk.confirm()
    assert "511" in caught.value.__notes__[0]
    fake_vss.faults.fail("DoSnapshotSet", 0x8004231F, where="async")
    with pytest.raises(InsufficientStorageError) as full:
        Snapshot("C:").create()
    assert "511" in full.value.__notes__[0]
    volume.storage = None
    fake_vss.faults.fail("DoSnapshotSet", 0x8004231F, where="async")
    with pytest.raises(InsufficientStorageError) as none:
        Snapshot("C:").create()
    assert "has no shadow storage yet" in none.value.__notes__[0]


def test_a_shadow_copy_that_is_lost_at_the_very_end_makes_no_image(
    fake_vss: FakeVss, volume: FakeVolume, tmp_path: Path
) -> None:
    target = tmp_path / "c.vsnap"
    with Snapshot("C:") as s:
        disk = s.open()
        for shadow in fake_vss.shadows.values():
            shadow.lose_after = len(volume.data) - 9 * 4096  # the last byte can just be read

        def lose(progress: object) -> None:
            fake_vss.lose(volume)

        with pytest.raises(SnapshotLostError):
            save_image(disk, target, progress=lose)
    assert not target.exists()


def test_a_shadow_copy_that_is_lost_meanwhile_makes_no_image(
    fake_vss: FakeVss, volume: FakeVolume, tmp_path: Path
) -> None:
    target = tmp_path / "c.vsnap"
    with Snapshot("C:") as s:
        disk = s.open()
        fake_vss.lose(volume, after=300_000)
        with pytest.raises(SnapshotLostError):
            save_image(disk, target)
    assert not target.exists()


def test_a_service_that_does_not_answer_loses_it(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("C:") as s, s.open() as disk:
        fake_vss.faults.fail("GetSnapshotProperties", 0x800706BA)
        with pytest.raises(SnapshotLostError, match="does not answer"):
            disk.confirm()


# Saying no.


def test_a_process_that_is_not_elevated_is_told_so_first(fake_vss: FakeVss, volume: FakeVolume) -> None:
    fake_vss.elevated = False
    assert "elevated" in probe("C:")
    with pytest.raises(SnapshotPermissionError, match="elevated"):
        Snapshot("C:").create()
    assert not fake_vss.calls
    with pytest.raises(SnapshotPermissionError) as caught:
        Snapshot("C:", options=VssOptions(allow_unelevated=True)).create()
    assert caught.value.code == 0x80070005


def test_a_32_bit_process_is_told_so_first(fake_vss: FakeVss, volume: FakeVolume) -> None:
    fake_vss.wow64 = True
    with pytest.raises(ProviderUnavailableError, match="64-bit"):
        Snapshot("C:").create()
    assert not fake_vss.calls


@pytest.mark.parametrize("state", ["disabled", "missing"])
def test_a_service_that_is_off_is_told_first(fake_vss: FakeVss, volume: FakeVolume, state: str) -> None:
    fake_vss.service = state  # type: ignore[assignment]
    assert "service Volume Shadow Copy" in available()["vss"]
    with pytest.raises(ProviderUnavailableError, match="Volume Shadow Copy"):
        Snapshot("C:").create()
    assert not fake_vss.calls


@pytest.mark.parametrize("supported", [False, True])
def test_a_file_system_that_vss_may_not_copy_is_asked_about(
    fake_vss: FakeVss, volume: FakeVolume, supported: bool
) -> None:
    fake_vss.add_volume("E:\\", filesystem="exFAT", supported=supported)
    request = SnapshotRequest(volumes=("C:", "E:"), require=Consistency.CRASH)
    offer = by_name("vss").probe(request)
    assert offer.level is (Consistency.APPLICATION if supported else None)
    assert ("dismount it and read it with open_device" in offer.reason) is not supported
    assert fake_vss.calls.count("IVssBackupComponents::IsVolumeSupported") == 1  # of C: everybody knows


def test_a_service_that_cannot_be_asked_is_found_out_later(fake_vss: FakeVss, volume: FakeVolume) -> None:
    fake_vss.add_volume("E:\\", filesystem="exFAT", supported=False)
    fake_vss.faults.fail("IsVolumeSupported", 0x80042302)
    request = SnapshotRequest(volumes=("E:",), require=Consistency.CRASH)
    assert by_name("vss").probe(request).level is Consistency.APPLICATION


def test_options_that_are_wrong_are_refused_at_once() -> None:
    with pytest.raises(UsageError):
        VssOptions(vss_provider="no id")
    with pytest.raises(UsageError):
        VssOptions(exclude_writers="SqlServerWriter")


def test_an_unknown_vss_provider_is_named(fake_vss: FakeVss, volume: FakeVolume) -> None:
    options = VssOptions(vss_provider="11111111-2222-3333-4444-555555555555")
    with pytest.raises(ProviderUnavailableError, match="no such VSS provider"):
        Snapshot("C:", options=options).create()
    with Snapshot("C:", options=VssOptions(vss_provider="system")):
        pass


def test_auto_recovery_can_be_left_out(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("C:", options=VssOptions(auto_recovery=False)):
        assert [shadow.context for shadow in fake_vss.shadows.values()] == [0x2]


# Its life.


def test_snapshots_one_after_the_other_leave_nothing(fake_vss: FakeVss, volume: FakeVolume) -> None:
    threads = threading.active_count()
    for _ in range(50):
        with Snapshot("C:") as s:
            s.open().pread(512, 0)
    fake_vss.check()
    assert until(lambda: threading.active_count() <= threads)


def test_two_at_a_time_wait_for_each_other(fake_vss: FakeVss, volume: FakeVolume) -> None:
    fake_vss.faults.delay("DoSnapshotSet", 0.1)
    fake_vss.add_volume("D:\\")
    failed: list[BaseException] = []

    def take(name: str) -> None:
        try:
            with Snapshot(name):
                pass
        except BaseException as exc:
            failed.append(exc)

    threads = [threading.Thread(target=take, args=(name,)) for name in ("C:", "D:")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


PROGRAM = """
import sys, threading, _thread, time
from vsssnap import Snapshot
from vsssnap.testing.fake_vss import FakeVss
vss = FakeVss()
vss.add_volume("C:\\\\")
with vss.installed():
    snapshot = Snapshot("C:")
    mode = sys.argv[1]
    if mode == "exit":
        snapshot.create()
        import atexit
        atexit._run_exitfuncs()
    else:
        vss.faults.delay("DoSnapshotSet")
        def interrupt():
            while not any(call.endswith("::DoSnapshotSet") for call in vss.calls):
                time.sleep(0.01)
            _thread.interrupt_main()
        try:
            threading.Thread(target=interrupt).start()
            snapshot.create()
        except KeyboardInterrupt:
            print("interrupted")
    vss.check()
    print("clean", len(vss.shadows))
"""


@pytest.mark.parametrize("mode", ["exit", "interrupt"])
def test_the_end_of_the_interpreter_and_ctrl_c_release(mode: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=False, timeout=120
    )
    assert "clean 0" in done.stdout, done.stderr
    assert ("interrupted" in done.stdout) == (mode == "interrupt")


def test_closing_does_not_wait_for_a_device_that_does_not_answer(
    fake_vss: FakeVss, volume: FakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answers = threading.Event(), threading.Event()
    made, found = ClusterMap.open, []

    def late(*arguments: Any) -> ClusterMap | None:  # noqa: ANN401 - those of what it stands for
        found.append(made(*arguments))
        asked.set()
        assert answers.wait(120)
        return found[0]

    monkeypatch.setattr(ClusterMap, "open", late)
    monkeypatch.setattr(_held, "_RELEASE_BUDGET", 0.2)
    snapshot = Snapshot("C:")
    snapshot.create()

    def close() -> None:
        with pytest.raises(SnapshotTimeoutError, match="wait for open"):
            snapshot.close()

    def use() -> None:
        with contextlib.suppress(VssSnapError):
            snapshot.open().close()

    opening, closing = threading.Thread(target=use), threading.Thread(target=close)
    opening.start()
    assert asked.wait(60)
    closing.start()
    closing.join(50)
    over = not closing.is_alive()
    answers.set()
    closing.join(60)
    opening.join(60)
    assert over
    assert found
    fake_vss.check()  # the handle of the map, too, which came when all was over


def test_a_device_that_cannot_be_opened_is_an_error_of_the_snapshot(
    fake_vss: FakeVss, volume: FakeVolume
) -> None:
    fake_vss.faults.fail("CreateFileW", 5)
    with pytest.raises(SnapshotError, match="cannot be opened"):
        Snapshot("C:").create()
    assert not fake_vss.shadows


# Persistent ones.


@pytest.mark.parametrize("with_writers", [True, False])
def test_a_persistent_shadow_copy_outlives_its_snapshot(
    fake_vss: FakeVss,
    volume: FakeVolume,
    with_writers: bool,
) -> None:
    fake_vss.add_writer("Writer")
    before = bytes(volume.data[:512])
    with Snapshot("C:", persistent=True, options=VssOptions(writers=with_writers)) as s:
        identity = s.id
        contexts = [shadow.context for shadow in fake_vss.shadows.values()]
    assert contexts == [0x9 if with_writers else 0x19]
    volume.pwrite(b"\xff" * 512, 0)
    assert [(record.provider, record.snapshot_id, record.volumes) for record in list_snapshots()] == [
        ("vss", identity, ("C:\\",))
    ]
    with Snapshot.attach(identity) as again:
        assert again.open("C:\\").pread(512, 0) == before
        assert again.id == identity
    assert len(fake_vss.shadows) == 1
    with Snapshot.attach(identity, provider="vss", own=True):
        pass
    assert not fake_vss.shadows
    assert list_snapshots() == []


@pytest.mark.parametrize("step", ["GetSnapshotProperties", "SaveAsXML", "CreateFileW"])
def test_a_persistent_shadow_copy_that_was_not_taken_whole_is_deleted(
    fake_vss: FakeVss, volume: FakeVolume, step: str
) -> None:
    fake_vss.faults.fail(step, 5 if step == "CreateFileW" else 0x8004231F)
    with pytest.raises(SnapshotError):
        Snapshot("C:", persistent=True).create()
    assert not fake_vss.shadows
    assert not fake_vss.faults.unused()


def test_a_persistent_shadow_copy_that_ends_too_late_is_deleted(
    fake_vss: FakeVss, volume: FakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    instant = "IVssBackupComponents::DoSnapshotSet"
    fake_vss.faults.delay("DoSnapshotSet", deaf=0.3)
    monkeypatch.setattr(_deadline, "time", Late(lambda: instant in fake_vss.calls))
    with pytest.raises(SnapshotTimeoutError):
        Snapshot("C:", persistent=True).create()
    assert "IVssBackupComponents::DeleteSnapshots" in fake_vss.calls
    assert not fake_vss.shadows


def test_one_that_is_gone_cannot_be_attached(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with pytest.raises(SnapshotError, match="has no snapshot"):
        Snapshot.attach("11111111-2222-3333-4444-555555555555", provider="vss")
    with pytest.raises(SnapshotError, match="has no snapshot"):
        Snapshot.attach("no id", provider="vss")


def test_a_process_that_is_not_elevated_sees_none_and_is_told(
    fake_vss: FakeVss, volume: FakeVolume, caplog: pytest.LogCaptureFixture
) -> None:
    fake_vss.elevated = False
    assert list_snapshots() == []
    assert "elevated" in caplog.text
    with pytest.raises(SnapshotPermissionError, match="that this process may see"):
        Snapshot.attach("11111111-2222-3333-4444-555555555555")
