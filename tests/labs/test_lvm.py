"""Volume groups that LVM made: read without it, and imaged while they are in use."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import said as vsssnap
from foreign import sfdisk
from loops import loop_device, make_file_system, run, sparse_file
from machine import play
from requirements import require_lab
from vsssnap import open_device, open_image
from vsssnap.blocks.reader import BlockReader
from vsssnap.volumes import VolumeGroup
from vsssnap.volumes.lvm.finding import physical_volumes

pytestmark = pytest.mark.lab

MIB = 1 << 20
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vsssnap-lvm-") as name:
        yield Path(name)


def settings(*devices: str) -> str:
    """LVM's, for devices of ours alone, and without device-mapper."""
    ours = ", ".join(f'"a|^{device}$|"' for device in devices)
    return (
        f'devices {{ use_devicesfile=0 filter=[{ours}, "r|.*|"] }} global {{ activation=0 }} '
        "backup { backup=0 archive=0 }"
    )


@pytest.fixture(scope="module")
def group(folder: Path) -> tuple[Path, Path, list[dict[str, str]]]:
    """Two physical volumes full of noise, and where the logical ones lie by LVM's word."""
    require_lab("lvm", "losetup")
    paths = [sparse_file(folder / name, 48 * MIB) for name in ("first", "second")]
    noise = random.Random(7)
    for path in paths:
        path.write_bytes(noise.randbytes(48 * MIB))
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(loop_device(path)) for path in paths)
        config = settings(first, second)

        def lvm(*command: str) -> str:
            return run("lvm", *command, "--config", config)

        areas = ("--metadatasize", "60k", "--dataalignment", "64k")
        lvm("pvcreate", "-q", "-y", "-ff", *areas, "--metadatacopies", "2", first)
        lvm("pvcreate", "-q", "-y", "-ff", *areas, second)
        lvm("vgcreate", "-q", "-s", "512k", "vg-1", first, second)
        for name, size, place in (("root", 10, first), ("my-home", 6, second), ("var", 3, first)):
            lvm("lvcreate", "-q", "-an", "-Zn", "-Wn", "-n", name, "-L", f"{size}M", "vg-1", place)
        lvm("lvcreate", "-q", "-an", "-Zn", "-Wn", "-n", "fast", "-i2", "-I", "32k", "-L", "4M", "vg-1")
        lvm("lvextend", "-q", "-L", "14M", "vg-1/root", first)
        lvm("lvextend", "-q", "-L", "16M", "vg-1/root", second)
        for _ in range(10):  # the text goes round in its area
            lvm("lvrename", "-q", "vg-1", "var", "other")
            lvm("lvrename", "-q", "vg-1", "other", "var")
        said = lvm(
            *("pvs", "--segments", "--units", "b", "--reportformat", "json"),
            *("-o", "pv_name,pvseg_start,pvseg_size,lv_name,segtype,seg_start,pe_start,vg_extent_size"),
        )
    rows = json.loads(said)["report"][0]["pvseg" if '"pvseg"' in said else "seg"]
    names = {first: "first", second: "second"}
    return paths[0], paths[1], [{**row, "pv_name": names[row["pv_name"]]} for row in rows]


def digest(reader: BlockReader) -> str:
    return hashlib.sha256(reader.pread(reader.size, 0)).hexdigest()


def test_volumes_lie_where_lvm_says(group: tuple[Path, Path, list[dict[str, str]]]) -> None:
    first, second, rows = group
    with open_device(second) as one, open_device(first) as other:
        found = VolumeGroup(one, other)
        assert [each.name for each in found] == ["root", "my-home", "var", "fast"]
        assert found.seqno > 25
        places = {each.name: "first" for each in found.physical.values() if each.reader is other}
        places |= {each.name: "second" for each in found.physical.values() if each.reader is one}
        ours = {
            (places[name], offset, segment.length // len(segment.stripes), each.name, segment.type)
            for each in found
            for segment in each.segments
            for name, offset in segment.stripes
        }
    theirs = set()
    for row in rows:
        if row["segtype"] != "free":
            size = int(row["vg_extent_size"].rstrip("B"))
            start = int(row["pe_start"].rstrip("B")) + int(row["pvseg_start"]) * size
            length = int(row["pvseg_size"]) * size
            theirs.add((row["pv_name"], start, length, row["lv_name"], row["segtype"]))
    assert ours == theirs
    assert len(ours) == 7


def test_other_readers_see_the_same_content(group: tuple[Path, Path, list[dict[str, str]]]) -> None:
    library: Any = importlib.import_module("dissect.volume.lvm")
    first, second, _ = group
    with open_device(first) as one, open_device(second) as other, contextlib.ExitStack() as stack:
        ours = {each.name: digest(each.open()) for each in VolumeGroup(one, other)}
        files = [stack.enter_context(path.open("rb")) for path in (first, second)]
        theirs = {
            name: hashlib.sha256(volume.open().read(-1)).hexdigest()
            for name, volume in library.LVM2(files).volume_group.logical_volumes.items()
        }
    # It takes a stripe for as many extents as it has sectors; tests/support/lvm_scene.py asks the kernel.
    for found in (ours, theirs):
        del found["fast"]
    assert ours == theirs


def test_a_file_system_in_a_volume_is_drawn_and_taken_out(folder: Path) -> None:
    require_lab("lvm", "losetup", "sfdisk", "mkfs.ext4", "e2fsck")
    disk = sparse_file(folder / "server", 64 * MIB)
    sfdisk(disk, "label: gpt\nstart=2048,size=2048\nstart=4096,size=102400,type=lvm\n")
    with loop_device(disk, part=(4096 * 512, 102400 * 512)) as device:
        config = settings(device)
        run("lvm", "pvcreate", "-q", device, "--config", config)
        run("lvm", "vgcreate", "-q", "vg", device, "--config", config)
        for name, size in (("swap", "4M"), ("root", "24M")):
            run(
                *("lvm", "lvcreate", "-q", "-an", "-Zn", "-Wn", "-n", name, "-L", size, "vg"),
                *("--config", config),
            )
    with open_device(disk) as reader:
        found = physical_volumes(reader)[2].group
        assert found is not None
        (segment,) = found["root"].segments
    start = 4096 * 512 + segment.stripes[0][1]
    with loop_device(disk, part=(start, 24 * MIB)) as device:
        make_file_system("ext4", device, "-L", "ROOT")
    image = folder / "server.vhdx"
    vsssnap("save", disk, image)
    shown = vsssnap("info", image)
    assert "   └─ LVM physical volume of the group vg\n" in shown
    assert "      └─ logical volume swap, 4.00 MiB\n" in shown
    assert "      └─ logical volume root, 24.0 MiB\n" in shown
    assert '         └─ ext4 "ROOT"' in shown
    told = json.loads(vsssnap("info", image, "--json"))["contents"]["partitions"][1]["physical_volume"]
    assert [each["name"] for each in told["volumes"]] == ["swap", "root"]
    assert told["volumes"][1]["filesystem"]["label"] == "ROOT"
    for options in (("--volume", "vg/root"), ("--volume", "root", "--partition", "2")):
        target = folder / "root.vsnap"
        vsssnap("save", image, target, "--replace", *options)
        with open_image(target) as saved:
            assert saved.size == 24 * MIB
            assert f"it is logical volume {options[1]} of {image}" in saved.metadata.notes
            assert sum(each.length for each in saved.extents() if each.kind == "data") < 8 * MIB
        vsssnap("restore", target, folder / "root.raw", "--replace")
        run("e2fsck", "-fn", folder / "root.raw")


@pytest.fixture(scope="module")
def played(folder: Path) -> dict[str, Any]:
    require_lab("qemu-system-x86_64", "busybox", "lvm", "mkfs.xfs", "mkfs.ext4", "e2fsck", "sfdisk")
    place = folder / "machine"
    place.mkdir()
    store = sparse_file(place / "store", 512 * MIB)
    play(SUPPORT / "lvm_scene.py", place, disks=[store], modules=("dm_mod", "dm_snapshot", "dm_mirror"))
    found: dict[str, Any] = json.loads((place / "shared" / "found.json").read_text())
    return {**found, "folder": place / "shared"}


@pytest.mark.long
@pytest.mark.timeout(900)  # a machine without KVM, on a machine that may be busy
def test_volumes_are_what_device_mapper_shows(played: dict[str, Any]) -> None:
    assert set(played["kernel"]) == {"root", "idle", "off", "fast", "old"}
    assert played["ours"] == played["kernel"]
    assert set(played["errors"]) == {"before", "twice"}
    assert "is a snapshot of old" in played["errors"]["before"]
    assert "of type mirror" in played["errors"]["twice"]


@pytest.mark.long
@pytest.mark.timeout(900)  # a machine without KVM, on a machine that may be busy
def test_a_disk_with_volumes_in_use_is_refused_volume_by_volume(played: dict[str, Any]) -> None:
    refused = played["refused"]
    assert refused.startswith("UsageError: /dev/loop0: no snapshot can stand for all of it: ")
    for words in (
        "logical volume vg/swap is used as swap",
        "logical volume vg/fast is of type striped",
        "logical volume vg/before is a snapshot of old",
        "logical volume vg/twice_mimage_0 is a part of vg/twice, of type mirror",
    ):
        assert words in refused
    assert not any(f"vg/{name} " in refused for name in ("root", "idle", "off", "old"))
    assert played["volumes"] == {
        "1": "/dev/loop0p1",
        "vg/root": "/dev/mapper/vg-root",
        "vg/idle": "/dev/mapper/vg-idle",
        "vg/old": "/dev/mapper/vg-old",
    }
    assert played["provider"] == "reflink"
    assert sorted(played["exclusions"]) == sorted(f"logical volume {name}" for name in played["uncovered"])


@pytest.mark.long
@pytest.mark.timeout(900)  # a machine without KVM, on a machine that may be busy
def test_a_disk_with_volumes_in_use_is_imaged_at_one_instant(played: dict[str, Any]) -> None:
    restored, naive = played["restored"], played["naive"]
    assert restored["e2fsck"][0] == 0
    assert (restored["integrity"], restored["file"]) == ("ok", True)
    assert restored["entries"] > 0
    assert restored["idle"] == played["kernel"]["idle"]
    assert restored["off"] == played["kernel"]["off"]
    assert naive["e2fsck"][0] != 0
    assert naive.get("integrity") != "ok"


@pytest.mark.long
@pytest.mark.timeout(900)  # a machine without KVM, on a machine that may be busy
def test_a_disk_without_partitions_is_imaged_too(played: dict[str, Any], tmp_path: Path) -> None:
    assert played["bare"] == {"other/data": "/dev/mapper/other-data"}
    restored, volume = tmp_path / "restored", tmp_path / "volume"
    vsssnap("restore", played["folder"] / "bare.vsnap", restored)
    with open_device(restored) as disk, VolumeGroup(disk)["data"].open() as data:
        volume.write_bytes(data.pread(data.size, 0))
    run("e2fsck", "-fn", volume)
    assert run("debugfs", "-R", "cat file", volume) == "before"


@pytest.mark.long
@pytest.mark.timeout(900)  # a machine without KVM, on a machine that may be busy
def test_what_lvm_does_meanwhile_is_an_error(played: dict[str, Any]) -> None:
    assert played["changed"].startswith("SourceChangedError: LVM changed the volume group vg")
    assert played["activated"].startswith("SourceChangedError: the logical volume vg/off was activated")
