"""Volume groups of real commands of LVM, with volumes of every kind: what is read, and what is refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from foreign import sfdisk
from loops import loop_device, partition, run, sparse_file
from machine import play
from requirements import require_lab
from vsssnap import DiskSnapshot, Uncovered, open_device, open_image, restore_image, save_image
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import UnsupportedFeatureError, UsageError
from vsssnap.volumes import VolumeGroup
from vsssnap.volumes.lvm.finding import find_volume, grouped

pytestmark = pytest.mark.lab

MIB = 1 << 20
SUPPORT = Path(__file__).parents[1] / "support"


def settings(*devices: str) -> str:
    """LVM's, for devices of ours alone, and without device-mapper."""
    ours = ", ".join(f'"a|^{device}$|"' for device in devices)
    return (
        f'devices {{ use_devicesfile=0 filter=[{ours}, "r|.*|"] }} global {{ activation=0 }} '
        "backup { backup=0 archive=0 }"
    )


@pytest.fixture(params=[512, 4096])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path, str, str]]:
    """Two files full of noise, and loop devices on them."""
    require_lab("lvm", "losetup")
    paths = tmp_path / "first", tmp_path / "second"
    for number, path in enumerate(paths):
        path.write_bytes(random.Random(number).randbytes(16 * MIB))
    size: int = request.param
    with (
        loop_device(paths[0], sector_size=size) as first,
        loop_device(paths[1], sector_size=size) as second,
    ):
        yield *paths, first, second


def lvm_on(*devices: str) -> Callable[..., str]:
    """LVM's commands that see these devices alone."""
    return lambda *command: run("lvm", *command, "--config", settings(*devices))


def made(lvm: Callable[..., str], name: str, *options: str) -> None:
    lvm("lvcreate", "-q", "-y", "-an", "-Zn", "-Wn", "-n", name, *options)


def contents(*paths: Path) -> dict[str, str]:
    """What is in the volumes of a group that can be read, and of which feature the others are."""
    with contextlib.ExitStack() as stack:
        group = VolumeGroup(*(stack.enter_context(open_device(path)) for path in paths))
        found = {}
        for each in group:
            try:
                found[each.name] = digest(each.open())
            except UnsupportedFeatureError as exc:
                found[each.name] = exc.feature
    return found


def digest(reader: BlockReader) -> str:
    return hashlib.sha256(reader.pread(reader.size, 0)).hexdigest()


def test_whatever_is_done_to_a_group_its_volumes_stay_what_they_are(
    pair: tuple[Path, Path, str, str],
) -> None:
    first, second, *devices = pair
    lvm = lvm_on(*devices)
    strange = "!!!!!!-####-pppp-pppp-pppp-pppp-pppppp"
    areas = ("--metadatasize", "60k", "--dataalignment", "64k")
    boot = ("--bootloaderareasize", "64k")
    lvm("pvcreate", "-q", "-y", "-ff", *areas, *boot, "--uuid", strange, "--norestorefile", devices[0])
    lvm("pvcreate", "-q", "-y", "-ff", *areas, "--pvmetadatacopies", "2", devices[1])
    lvm("vgcreate", "-q", "-s", "128k", "vg", *devices)
    made(lvm, "root", "-L", "4M", "vg", devices[0])
    made(lvm, "fast", "-i2", "-I", "16k", "-L", "2M", "vg")
    made(lvm, "wide", "--type", "raid0", "-i2", "-L", "2M", "vg")
    for kind in ("zero", "error"):
        lvm("lvcreate", "-q", "-an", "-n", kind, "--type", kind, "-L", "2M", "vg")
    before = contents(first, second)
    assert {name: before[name] for name in ("wide", "zero", "error")} == {
        "wide": "LVM raid0",
        "zero": "LVM zero",
        "error": "LVM error",
    }
    place = int(lvm("pvs", "--noheadings", "--nosuffix", "--units", "b", "-o", "pe_start", devices[0]))
    assert contents(*map(Path, devices)) == before
    assert before["root"] == hashlib.sha256(first.read_bytes()[place : place + 4 * MIB]).hexdigest()
    for command in (
        ("pvchange", "-q", "--metadataignore", "y", devices[0]),
        ("vgrename", "-q", "vg", "other"),
        ("lvchange", "-q", "--addtag", "fast", "other/root"),
        ("vgexport", "-q", "other"),
        ("vgimport", "-q", "other"),
        ("pvchange", "-q", "--metadataignore", "n", devices[0]),
    ):
        lvm(*command)
        assert contents(first, second) == contents(second, first) == before, command
    # The words of a command are in the description, in whatever coding they were typed.
    words = settings(*devices, "gr\udcf6\udcdfe")
    run("lvm", "lvchange", "-q", "--addtag", "b", "other/root", "--config", words)
    assert b"gr\xf6\xdfe" in first.read_bytes()
    assert contents(first, second) == before
    with open_device(first) as one:
        assert strange in {each.id for each in VolumeGroup(one).physical.values()}


def test_a_physical_volume_that_was_away_is_known_as_lvm_knows_it(pair: tuple[Path, Path, str, str]) -> None:
    first, second, *devices = pair
    both, alone = lvm_on(*devices), lvm_on(devices[0])
    both("pvcreate", "-q", "-y", "-ff", *devices)
    both("vgcreate", "-q", "-s", "1M", "vg", *devices)
    made(both, "root", "-L", "4M", "vg", devices[0])
    made(both, "home", "-L", "4M", "vg", devices[1])
    alone("lvchange", "-q", "--addtag", "a", "vg/root")
    assert both("pvs", "--noheadings", "-o", "pv_missing", devices[1]).strip() == "missing"
    with open_device(first) as one, open_device(second) as other:
        group = VolumeGroup(other, one)
        assert [each.name for each in group] == ["root", "home"]
        assert any("was missing when its group was changed" in note for note in group.notes)
        alone("vgreduce", "-q", "--removemissing", "--force", "vg")
        made(alone, "more", "-L", "4M", "vg")
        assert both("pvs", "--noheadings", "-o", "pv_name", "-S", "vg_name=vg").split() == [devices[0]]
    for order in ((first, second), (second, first)):
        with open_device(order[0]) as one, open_device(order[1]) as other:
            found = grouped({1: one, 2: other})
            groups = {order[number - 1]: each.group for number, each in found.items()}
            assert groups[second] is None
            assert [each.name for each in groups[first] or ()] == ["root", "more"]
            assert sum("no longer in the group vg" in str(each.problem) for each in found.values()) == 1


def test_a_group_of_another_host_is_refused_though_nobody_uses_it_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_lab("lvm", "losetup", "sfdisk", "addpart")
    disk = sparse_file(tmp_path / "disk", 32 * MIB)
    sfdisk(disk, "label: gpt\nstart=2048,size=40960,type=lvm\n")
    (tmp_path / "lvm.conf").write_text('global { system_id_source = "lvmlocal" }\n')
    (tmp_path / "lvmlocal.conf").write_text('local { system_id = "they" }\n')
    with loop_device(disk, partitions=True) as device, partition(device, 1, 2048, 40960) as part:
        lvm = lvm_on(part)
        lvm("pvcreate", "-q", part)
        with monkeypatch.context() as their_host:
            their_host.setenv("LVM_SYSTEM_DIR", str(tmp_path))
            lvm("vgcreate", "-q", "vg", part)
            made(lvm, "root", "-L", "4M", "vg")
            with DiskSnapshot(device) as s:
                assert list(s.volumes) == [1]
        with pytest.raises(
            UsageError, match="partition 1 is of the volume group vg, which the host they own"
        ):
            DiskSnapshot(device).create()
        with DiskSnapshot(device, uncovered=Uncovered.READ) as s, s.open() as reader:
            assert digest(reader) == hashlib.sha256(disk.read_bytes()).hexdigest()


def test_a_disk_under_lvm_of_which_nothing_is_active_is_imaged(
    pair: tuple[Path, Path, str, str], tmp_path: Path
) -> None:
    first, _, device, _ = pair
    lvm = lvm_on(device)
    lvm("pvcreate", "-q", "-y", "-ff", device)
    lvm("vgcreate", "-q", "-s", "1M", "vg", device)
    made(lvm, "root", "-L", "4M", "vg")
    with DiskSnapshot(device) as s, s.open() as reader:
        assert dict(s.volumes) == {0: device}
        save_image(reader, tmp_path / "image.vsnap")
    before = contents(first)
    copy = tmp_path / "copy"
    with open_image(tmp_path / "image.vsnap") as saved:
        restore_image(saved, copy)
    assert contents(copy) == before
    with loop_device(copy) as other:
        run("lvm", "vgck", "vg", "--config", settings(other))
        said = run("lvm", "lvs", "--noheadings", "-o", "name", "--config", settings(other))
    assert said.split() == ["root"]


@pytest.fixture(scope="module")
def kinds() -> Iterator[dict[str, Any]]:
    """A group with volumes of every kind, and its copy."""
    require_lab("qemu-system-x86_64", "busybox", "lvm", "mkfs.ext4", "e2fsck", "sfdisk")
    require_lab("thin_check", "cache_check")
    with tempfile.TemporaryDirectory(prefix="vsssnap-lvm-kinds-") as name:
        place = Path(name)
        disks = [sparse_file(place / name, 256 * MIB) for name in ("disk", "copy")]
        modules = ("dm_snapshot", "dm_mirror", "dm_raid", "raid0", "raid1", "raid456")
        pools = ("dm_thin_pool", "dm_cache_smq")
        play(SUPPORT / "lvm_kinds_scene.py", place, disks=disks, modules=(*modules, *pools))
        found: dict[str, Any] = json.loads((place / "shared" / "found.json").read_text())
        yield {**found, "disk": disks[0]}


REFUSED = {
    "before": "LVM snapshot",
    "safe": "LVM raid1",
    "parity": "LVM raid5",
    "wide": "LVM raid0",
    "twice": "LVM mirror",
    "pool": "LVM thin-pool",
    "thin": "LVM thin",
    "cached": "LVM cache+CACHE_USES_CACHEVOL",
}


@pytest.mark.long
@pytest.mark.timeout(900)  # a machine without KVM, on a machine that may be busy
def test_kinds_that_are_not_read_are_refused_beside_those_that_are(kinds: dict[str, Any]) -> None:
    with open_device(kinds["disk"]) as disk:
        for name, feature in REFUSED.items():
            with pytest.raises(UnsupportedFeatureError, match=f"the logical volume {name} ") as caught:
                find_volume(disk, f"kinds/{name}").open()
            assert caught.value.feature == feature
            assert "activate it with LVM" in caught.value.hint
        for name in ("root", "fast", "old"):
            assert digest(find_volume(disk, f"kinds/{name}").open()) == kinds["kernel"][name]
    assert set(kinds["kernel"]) == {*REFUSED, "root", "fast", "old"} - {"pool"}


@pytest.mark.long
@pytest.mark.timeout(900)  # a machine without KVM, on a machine that may be busy
def test_every_kind_is_told_when_its_disk_is_in_use(kinds: dict[str, Any]) -> None:
    for words in (
        "kinds/fast is of type striped",
        "kinds/before is a snapshot of old",
        "kinds/safe_rimage_1 is a part of kinds/safe, of type raid1",
        "kinds/parity_rmeta_2 is a part of kinds/parity, of type raid5",
        "kinds/wide_rimage_0 is a part of kinds/wide, of type raid0",
        "kinds/twice_mimage_0 is a part of kinds/twice, of type mirror",
        "kinds/pool_tdata is a part of kinds/pool, of type thin-pool",
        "kinds/pool_tmeta is a part of kinds/pool, of type thin-pool",
        "kinds/cached_corig is a part of kinds/cached, of type cache",
        "kinds/quick_cvol is a part of kinds/cached, of type cache",
    ):
        assert f"logical volume {words}" in kinds["refused"]
    assert "kinds/root " not in kinds["refused"]
    assert kinds["volumes"] == {"kinds/old": "/dev/mapper/kinds-old", "kinds/root": "/dev/mapper/kinds-root"}
    for number in (1, 5, 6):  # the latter two are logical partitions
        moving = f"partition {number} is under LVM, and it is not known where kinds/pvmove0, of type mirror"
        assert moving in kinds["moving"]


@pytest.mark.long
@pytest.mark.timeout(900)  # a machine without KVM, on a machine that may be busy
def test_an_image_of_a_disk_brings_every_kind_back(kinds: dict[str, Any]) -> None:
    """Only the linear volume without snapshots is without its free blocks."""
    assert kinds["copied files"] == kinds["files"]
    assert [state for state, _ in kinds["files"].values()] == [0, 0, 0]
    assert kinds["files"]["before"][1] != kinds["files"]["old"][1]
    kernel, copied = dict(kinds["kernel"]), dict(kinds["copied"])
    assert kernel.pop("root") != copied.pop("root")
    assert kernel == copied
    assert [note for note in kinds["notes"] if "kinds/old: every block is kept" in note]
    assert kinds["saved"] < 128 * MIB
