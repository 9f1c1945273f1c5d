"""Played in a machine with device-mapper: a group with logical volumes of every kind, copied without LVM.

The group stays on ``/dev/vda`` for tests/labs/test_lvm_kinds.py to read; what the kernel showed of each
volume, and of its copy on ``/dev/vdb``, is written to ``/mnt/found.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from vsssnap import DiskSnapshot, Uncovered, open_device, open_image, restore_image, save_image
from vsssnap.errors import VssSnapError
from vsssnap.volumes import view_of

MIB = 1 << 20
FOUND: dict[str, object] = {}
PLAIN = ("-q", "-y", "-Zn", "-Wn")
VOLUMES = ("root", "fast", "old", "before", "safe", "parity", "wide", "twice", "thin", "cached")


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def settings(disk: str) -> str:
    return (
        f'devices {{ use_devicesfile=0 scan=["/dev"] filter=["a|^{disk}|", "r|.*|"] }} '
        "activation { udev_sync=0 udev_rules=0 monitoring=0 raid_region_size=512 } "
        'backup { backup=0 archive=0 } global { locking_dir="/run/lock" }'
    )


def lvm(*command: str, disk: str = "/dev/vda") -> str:
    return run("lvm", *command, "--config", settings(disk))


def device(name: str) -> str:
    return f"/dev/mapper/kinds-{name}"


def digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fill(name: str) -> None:
    """Bytes that tell whose they are."""
    with open(device(name), "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        file.writelines(
            hashlib.shake_256(f"{name} {at}".encode()).digest(min(MIB, size - at))
            for at in range(0, size, MIB)
        )
        os.fsync(file.fileno())


@contextlib.contextmanager
def mounted(name: str, *options: str) -> Iterator[Path]:
    at = Path("/run") / name
    at.mkdir(exist_ok=True)
    run("mount", *options, device(name), str(at))
    try:
        yield at
    finally:
        run("umount", str(at))


def make() -> None:
    places = "start=2048,size=163840,type=8e\nstart=165888,type=extended\n"
    places += "start=167936,size=163840,type=8e\nstart=333824,size=163840,type=8e\n"
    subprocess.run(["sfdisk", "-q", "/dev/vda"], input=f"label: dos\n{places}", text=True, check=True)
    parts = [f"/dev/vda{number}" for number in (1, 5, 6)]
    lvm("pvcreate", "-q", *parts)
    lvm("vgcreate", "-q", "-s", "1M", "kinds", *parts)
    lvm("lvcreate", *PLAIN, "-n", "root", "-L", "16M", "kinds", parts[0])
    lvm("lvcreate", *PLAIN, "-n", "fast", "-i2", "-I", "64k", "-L", "8M", "kinds")
    lvm("lvcreate", *PLAIN, "-n", "old", "-L", "16M", "kinds", parts[1])
    lvm("lvcreate", *PLAIN, "--nosync", "--type", "raid1", "-m1", "-n", "safe", "-L", "4M", "kinds")
    lvm("lvcreate", *PLAIN, "--type", "raid5", "-i2", "-n", "parity", "-L", "4M", "kinds")
    lvm("lvcreate", *PLAIN, "--type", "raid0", "-i2", "-n", "wide", "-L", "4M", "kinds")
    mirror = ("--type", "mirror", "--mirrorlog", "core", "-m1")
    lvm("lvcreate", *PLAIN, *mirror, "-n", "twice", "-L", "4M", "kinds")
    lvm("lvcreate", "-q", "-y", "--type", "thin-pool", "-Zn", "-n", "pool", "-L", "8M", "kinds")
    lvm("lvcreate", "-q", "-y", "-Wn", "-V", "32M", "-n", "thin", "--thinpool", "kinds/pool")
    lvm("lvcreate", *PLAIN, "-n", "cached", "-L", "8M", "kinds", parts[2])
    lvm("lvcreate", *PLAIN, "-n", "quick", "-L", "8M", "kinds", parts[0])
    lvm("lvconvert", "-q", "-y", "--type", "cache", "--cachevol", "kinds/quick", "kinds/cached")
    for name in ("fast", "safe", "parity", "wide", "twice", "cached"):
        fill(name)
    with open(device("thin"), "r+b") as file:
        file.write(b"thin as it is" * 10_000)
        os.fsync(file.fileno())
    for name in ("root", "old"):
        run("mkfs.ext4", "-q", "-F", device(name))
        with mounted(name) as at:
            (at / "file").write_bytes(f"{name} had this ".encode() * 200_000)
            (at / "gone").write_bytes(b"gone " * 200_000)  # its blocks are free, and no zeros
            run("sync", "-f", str(at))
            (at / "gone").unlink()
    lvm("lvcreate", "-q", "-y", "-s", "-n", "before", "-L", "8M", "kinds/old")
    with mounted("old") as at:
        (at / "file").unlink()
        (at / "new").write_bytes(b"and has this now")
    run("sync")


def digests() -> dict[str, str]:
    """What the kernel shows of each volume."""
    return {name: digest(device(name)) for name in VOLUMES}


def files() -> dict[str, object]:
    """What the file systems hold."""
    said: dict[str, object] = {}
    for name in ("root", "old", "before"):
        checked = subprocess.run(["e2fsck", "-fn", device(name)], capture_output=True, check=False)
        with mounted(name, "-o", "ro,noload") as at:
            content = {
                each.name: hashlib.sha256(each.read_bytes()).hexdigest()
                for each in at.iterdir()
                if each.is_file()
            }
        said[name] = [checked.returncode, content]
    return said


def failure(what: object) -> str:
    """The error that a call ends with."""
    try:
        what()  # type: ignore[operator]
    except VssSnapError as exc:
        return f"{type(exc).__name__}: {exc.message}"
    return ""


def interrupted(mover: subprocess.Popen[bytes]) -> bool:
    """Whether a move was under way when it was ended; else it was too fast."""
    try:
        while mover.poll() is None:
            if Path(device("pvmove0")).exists():
                lvm("lvs", "kinds")  # waits until the group is no longer locked: the extents are on their way
                return Path(device("pvmove0")).exists()
        return False
    finally:
        mover.kill()
        mover.wait()


def move() -> None:
    """A move of extents that was interrupted: what is moved may be anywhere."""
    Path("/sys/module/dm_mirror/parameters/raid1_resync_throttle").write_text("1")  # per cent of the time
    places = ["/dev/vda1", "/dev/vda6"]
    for _ in range(10):
        command = ["lvm", "pvmove", "-i", "600", "-n", "root", *places, "--config", settings("/dev/vda")]
        if interrupted(subprocess.Popen(command, stdin=subprocess.DEVNULL)):
            break
        places.reverse()
    FOUND["moving"] = failure(DiskSnapshot("/dev/vda").create)
    lvm("pvmove", "--abort")


def main() -> None:
    Path("/run/lock").mkdir(exist_ok=True)
    make()
    FOUND["files"] = files()
    FOUND["refused"] = failure(DiskSnapshot("/dev/vda").create)
    with DiskSnapshot("/dev/vda", uncovered=Uncovered.LEAVE_OUT) as s, s.open() as reader:
        FOUND["volumes"] = {str(key): name for key, name in s.volumes.items()}
        FOUND["exclusions"] = list(reader.metadata.exclusions)
        reader.confirm()
    move()
    FOUND["kernel"] = digests()
    FOUND["types"] = lvm("lvs", "-a", "--noheadings", "-o", "name,segtype", "kinds")
    lvm("vgchange", "-q", "-an", "kinds")
    with open_device("/dev/vda") as disk, view_of(disk) as view:
        FOUND["notes"] = list(view.metadata.notes)
        FOUND["saved"] = save_image(view, "/tmp/disk.vsnap").data
    with open_image("/tmp/disk.vsnap") as saved:
        restore_image(saved, "/dev/vdb")
    run("blockdev", "--rereadpt", "/dev/vdb")
    lvm("vgchange", "-q", "-ay", "kinds", disk="/dev/vdb")
    FOUND["copied"] = digests()
    FOUND["copied files"] = files()
    lvm("vgchange", "-q", "-an", "kinds", disk="/dev/vdb")


try:
    main()
finally:
    Path("/mnt/found.json").write_text(json.dumps(FOUND, indent=1))
