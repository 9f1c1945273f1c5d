"""Partitions under LVM are put together of what is known of each logical volume."""

from __future__ import annotations

from pathlib import Path

import pytest

import lvm_images as lvm
from lvm_images import EXTENT, START, physical_volume, segment, volume
from vsssnap import ExtentKind, Uncovered, UnusedPolicy
from vsssnap._placed import MappedVolume
from vsssnap.blocks.plain import PlainReader
from vsssnap.blocks.reader import BlockReader
from vsssnap.disk import logical
from vsssnap.errors import CorruptImageError, SourceChangedError

VOLUMES = (
    volume("root", segment(1, 0, 3, [("pv0", 4)]), segment(2, 3, 2, [("pv0", 1)]))
    + volume("swap", segment(1, 0, 1, [("pv0", 0)]))
    + volume("off", segment(1, 0, 2, [("pv0", 8)]))
)


class System:
    """What the system shows, by name of the volume."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.active: dict[str, MappedVolume] = {}
        monkeypatch.setattr(logical, "_mapped", lambda: self.active)

    def shows(self, name: str, *, idle: bool = False, reason: str = "", part: str = "") -> None:
        key = (lvm.VG_ID + f"{name[:6]:x<6}-lvlv-lvlv-lvlv-lvlv-lvlv-lvlvlv").replace("-", "") + part
        self.active[key] = MappedVolume(id=key, name=f"/dev/mapper/vg-{name}", idle=idle, reason=reason)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    return System(monkeypatch)


def partition(folder: Path, volumes: str = VOLUMES, *, pvs: int = 1, number: int = 0, seqno: int = 7) -> Path:
    path = folder / f"pv{number}"
    path.write_bytes(physical_volume(lvm.group(volumes, pvs=pvs, seqno=seqno), number))
    return path


def extents(path: Path, first: int, count: int) -> bytes:
    return path.read_bytes()[START + first * EXTENT : START + (first + count) * EXTENT]


def snapshot(count: int, letter: bytes) -> BlockReader:
    return PlainReader(letter * count * EXTENT, count * EXTENT)


def test_each_volume_is_had_in_its_way(system: System, tmp_path: Path) -> None:
    path = partition(tmp_path)
    system.shows("root")
    system.shows("swap", reason="is used as swap")
    found = logical.find({2: str(path)})
    assert found.mounted == {"vg/root": "/dev/mapper/vg-root"}
    assert found.inactive == {"vg/off"}
    assert found.reasons == {"vg/swap": "is used as swap"}
    system.shows("off", idle=True)
    assert logical.find({2: str(path)}).idle == {"vg/off": "/dev/mapper/vg-off"}
    assert logical.find({}).devices == {}


@pytest.mark.parametrize("unused", list(UnusedPolicy))
@pytest.mark.parametrize("policy", list(Uncovered))
def test_snapshots_lie_where_the_volumes_do(
    unused: UnusedPolicy, policy: Uncovered, system: System, tmp_path: Path
) -> None:
    path = partition(tmp_path)
    system.shows("root")
    system.shows("swap", reason="is used as swap")
    found = logical.find({2: str(path)})
    root = PlainReader(b"a" * 3 * EXTENT + b"b" * 2 * EXTENT, 5 * EXTENT)
    with found.open(2, {"vg/root": root}, unused, policy) as whole:
        assert whole.size == path.stat().st_size
        assert whole.pread(START, 0) == path.read_bytes()[:START]
        left_out = policy is Uncovered.LEAVE_OUT
        free = unused is UnusedPolicy.ZERO
        expected = [
            bytes(EXTENT) if left_out else extents(path, 0, 1),
            b"b" * 2 * EXTENT,
            bytes(EXTENT) if free else extents(path, 3, 1),
            b"a" * 3 * EXTENT,
            bytes(EXTENT) if free else extents(path, 7, 1),
            extents(path, 8, 2),
            bytes(22 * EXTENT) if free else extents(path, 10, 22),
        ]
        assert whole.pread(32 * EXTENT, START) == b"".join(expected)
        kinds = {each.kind for each in whole.extents()}
        assert (ExtentKind.EXCLUDED in kinds, ExtentKind.HOLE in kinds) == (left_out, free)
        whole.confirm()
    with pytest.raises(ValueError, match="closed"):
        root.pread(1, 0)


def test_free_extents_are_kept_where_it_is_not_known_that_they_are(system: System, tmp_path: Path) -> None:
    odd = 'segment1 {\nstart_extent = 0\nextent_count = 2\ntype = "new"\nplaces = ["pv0", 20]\n}\n'
    path = partition(tmp_path, VOLUMES + volume("odd", odd))
    found = logical.find({2: str(path)})
    with found.open(2, {}, UnusedPolicy.ZERO, None) as whole:
        assert whole.pread(whole.size, 0) == path.read_bytes()


def test_a_volume_over_partitions_of_the_disk_is_had_and_one_over_disks_is_not(
    system: System, tmp_path: Path
) -> None:
    text = volume("root", segment(1, 0, 2, [("pv0", 3)]), segment(2, 2, 1, [("pv1", 5)])) + volume(
        "fast", segment(1, 0, 4, [("pv0", 10), ("pv1", 10)], stripe=16)
    )
    paths = [partition(tmp_path, text, pvs=2, number=number) for number in range(2)]
    system.shows("root")
    system.shows("fast")
    found = logical.find({2: str(paths[0]), 3: str(paths[1])})
    assert found.mounted == {"vg/root": "/dev/mapper/vg-root"}
    assert found.reasons == {"vg/fast": "is of type striped"}
    root = PlainReader(b"a" * 2 * EXTENT + b"b" * EXTENT, 3 * EXTENT)
    given = {"vg/root": root}
    with (
        found.open(2, given, UnusedPolicy.ZERO, Uncovered.READ) as one,
        found.open(3, given, UnusedPolicy.ZERO, Uncovered.READ) as other,
    ):
        assert one.pread(2 * EXTENT, START + 3 * EXTENT) == b"a" * 2 * EXTENT
        assert other.pread(EXTENT, START + 5 * EXTENT) == b"b" * EXTENT
    alone = logical.find({2: str(paths[0])})
    assert alone.reasons["vg/root"] == "spans disks: it lies also on /dev/sdb1"
    assert not alone.mounted


def test_parts_of_other_volumes_are_named_with_them(system: System, tmp_path: Path) -> None:
    raid = 'segment1 {\nstart_extent = 0\nextent_count = 2\ntype = "raid1"\nraids = ["meta", "data"]\n}\n'
    shot = raid.replace("raid1", "snapshot").replace(
        'raids = ["meta", "data"]', 'origin = "base"\ncow_store = "cow"'
    )
    hidden = '"READ", "WRITE"'
    text = (
        volume("safe", raid)
        + volume("meta", segment(1, 0, 1, [("pv0", 0)]), status=hidden)
        + volume("data", segment(1, 0, 2, [("pv0", 1)]), status=hidden)
        + volume("base", segment(1, 0, 2, [("pv0", 3)]))
        + volume("cow", segment(1, 0, 2, [("pv0", 5)]))
        + volume("snapshot0", shot, status=hidden)
    )
    path = partition(tmp_path, text)
    for name in ("safe", "meta", "data", "base", "cow"):
        system.shows(name, idle=True)
    found = logical.find({1: str(path)})
    assert found.idle == {"vg/base": "/dev/mapper/vg-base"}
    assert found.reasons == {
        "vg/meta": "is a part of vg/safe, of type raid1",
        "vg/data": "is a part of vg/safe, of type raid1",
        "vg/cow": "is a snapshot of base, and its segments hold only what was overwritten",
    }
    # Only a part of it is active, under a name of its own.
    system.active.clear()
    system.shows("data", part="-rimage")
    assert set(logical.find({1: str(path)}).reasons) == {"vg/data"}


def test_what_is_being_moved_is_not_taken_for_free(system: System, tmp_path: Path) -> None:
    moving = (
        'segment1 {\nstart_extent = 0\nextent_count = 2\ntype = "mirror"\nmirror_count = 2\n'
        'mirrors = ["pv0", 3, "pv0", 9]\n}\n'
    )
    text = volume("root", segment(1, 0, 2, [("pvmove0", 0)])) + volume("pvmove0", moving, status='"READ"')
    path = partition(tmp_path, text)
    with logical.find({1: str(path)}).open(1, {}, UnusedPolicy.ZERO, None) as whole:
        assert whole.pread(whole.size, 0) == path.read_bytes()
    system.shows("root")
    system.shows("pvmove0", idle=True)
    found = logical.find({1: str(path)})
    assert found.reasons == {
        1: "is under LVM, and it is not known where vg/pvmove0, of type mirror, lies on it"
    }
    assert not found.devices


def test_what_lvm_does_meanwhile_is_an_error(system: System, tmp_path: Path) -> None:
    path = partition(tmp_path)
    system.shows("root")
    found = logical.find({1: str(path)})
    whole = found.open(1, {"vg/root": snapshot(5, b"a")}, UnusedPolicy.ZERO, None)
    whole.confirm()
    system.shows("off")
    with pytest.raises(SourceChangedError, match="vg/off was activated while it was read"):
        whole.confirm()
    system.active.popitem()
    whole.confirm()
    partition(tmp_path, seqno=8)
    with pytest.raises(SourceChangedError, match="LVM changed the volume group vg while it was read"):
        whole.confirm()
    whole.close()
    with pytest.raises(SourceChangedError, match="LVM changed the volume group vg since the snapshot"):
        found.open(1, {"vg/root": snapshot(5, b"a")}, UnusedPolicy.ZERO, None)
    partition(tmp_path)
    with pytest.raises(SourceChangedError, match="vg/root has 65536 bytes, and 327680 in the description"):
        found.open(1, {"vg/root": snapshot(1, b"a")}, UnusedPolicy.ZERO, None)
    path.write_bytes(bytes(START))
    with pytest.raises(SourceChangedError, match="no physical volume of LVM any more"):
        found.open(1, {}, UnusedPolicy.ZERO, None)


def test_metadata_that_cannot_be_read_or_believed_are_a_reason(system: System, tmp_path: Path) -> None:
    path = tmp_path / "pv"
    path.write_bytes(bytes(START))
    (reason,) = logical.find({3: str(path)}).reasons.values()
    assert reason.startswith("is under LVM, and its metadata cannot be read: it is no LVM physical volume")
    twice = volume("a", segment(1, 0, 2, [("pv0", 4)])) + volume("b", segment(1, 0, 2, [("pv0", 5)]))
    found = logical.find({3: str(partition(tmp_path, twice))})
    with pytest.raises(CorruptImageError, match="belongs to two logical volumes"):
        found.open(3, {}, UnusedPolicy.ZERO, None)


def test_a_volume_that_was_renamed_since_is_not_read_live(system: System, tmp_path: Path) -> None:
    system.shows("root")
    found = logical.find({1: str(partition(tmp_path))})
    path = partition(tmp_path, VOLUMES.replace("root {", "other {"), seqno=8)
    with pytest.raises(SourceChangedError, match="since the snapshot was taken") as caught:
        found.open(1, {"vg/root": snapshot(5, b"a")}, UnusedPolicy.ZERO, None)
    assert "try again" in caught.value.hint
    path.unlink()


def test_two_groups_of_one_name_are_not_taken_for_one_another(system: System, tmp_path: Path) -> None:
    """Their volumes may have one name and one size, too."""
    other = lvm.VG_ID.replace("v", "w")
    paths = [partition(tmp_path), tmp_path / "other"]
    text = lvm.group(VOLUMES).replace(lvm.VG_ID.encode(), other.encode())
    paths[1].write_bytes(physical_volume(text.replace(lvm.pv_id(0).encode(), lvm.pv_id(5).encode()), 5))
    system.shows("root")
    found = logical.find({1: str(paths[0]), 2: str(paths[1])})
    assert set(found.reasons) == {1, 2}
    assert "several groups on the disk are called vg (vgrename" in found.reasons[2]
    assert not found.mounted
    assert not found.devices
    alone = logical.find({1: str(paths[0])})
    assert list(alone.mounted) == ["vg/root"]


def test_what_another_host_may_use_is_not_taken_for_unused(system: System, tmp_path: Path) -> None:
    text = lvm.group(VOLUMES).replace(b"seqno = 7\n", b'seqno = 7\nlock_type = "sanlock"\n')
    path = tmp_path / "pv"
    path.write_bytes(physical_volume(text))
    system.shows("root")
    system.shows("swap", idle=True)
    found = logical.find({1: str(path)})
    assert list(found.mounted) == ["vg/root"]
    assert (found.idle, found.inactive) == ({}, set())
    assert {name: "shared with hosts" in why for name, why in found.reasons.items()} == {
        "vg/swap": True,
        "vg/off": True,
    }


def test_a_volume_may_be_called_like_a_word_of_lvm(system: System, tmp_path: Path) -> None:
    cached = (
        'segment1 {\nstart_extent = 0\nextent_count = 2\ntype = "cache"\ntags = ["home"]\n'
        'cache_pool = "pool"\norigin = "slow"\ncache_mode = "writethrough"\npolicy = "smq"\n}\n'
    )
    plain = ["cache", "home", "smq", "writethrough"]
    text = volume("fast", cached) + volume("slow", segment(1, 0, 2, [("pv0", 9)]), status='"READ"')
    for number, name in enumerate(plain):
        text += volume(name, segment(1, 0, 1, [("pv0", number)]))
        system.shows(name)
    system.shows("slow")
    found = logical.find({1: str(partition(tmp_path, text))})
    assert sorted(found.mounted) == sorted(f"vg/{name}" for name in plain)
    assert found.reasons == {"vg/slow": "is a part of vg/fast, of type cache"}
