"""Played in a machine with device-mapper: a disk with LVM is made, read, imaged in use, and restored.

What was found is written to ``/mnt/found.json``; tests/labs/test_lvm.py holds it against what it should be.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import subprocess
import threading
from pathlib import Path

from vsssnap import DiskSnapshot, Uncovered, open_device, open_image, restore_image, save_image
from vsssnap.errors import VssSnapError
from vsssnap.volumes.lvm.finding import find_volume

MIB = 1 << 20
SETTINGS = (
    'devices { use_devicesfile=0 scan=["/dev"] '
    'filter=["a|^/dev/loop0p|", "a|^/dev/loop1$|", "a|^/dev/mapper/|", "r|.*|"] } '
    "activation { udev_sync=0 udev_rules=0 monitoring=0 } "
    'backup { backup=0 archive=0 } global { locking_dir="/run/lock" }'
)
VOLUMES = ("root", "idle", "off", "fast", "old")
FOUND: dict[str, object] = {}


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def lvm(*command: str) -> str:
    return run("lvm", *command, "--config", SETTINGS)


def digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fill(path: str, seed: str) -> None:
    """Bytes that tell where they are."""
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        file.writelines(
            hashlib.shake_256(f"{seed} {at}".encode()).digest(min(MIB, size - at))
            for at in range(0, size, MIB)
        )
        os.fsync(file.fileno())


def failure(what: object) -> str:
    """The error that a call ends with."""
    try:
        what()  # type: ignore[operator]
    except VssSnapError as exc:
        return f"{type(exc).__name__}: {exc.message}"
    return ""


def make() -> None:
    run("mkfs.xfs", "-q", "-m", "reflink=1", "/dev/vda")
    Path("/run/store").mkdir()
    run("mount", "/dev/vda", "/run/store")
    with open("/run/store/disk.img", "xb") as file:
        file.truncate(160 * MIB)
    places = ((2048, 16384, "linux"), (18432, 163840, "lvm"), (182272, 122880, "lvm"))
    table = "label: gpt\n" + "".join(f"start={a},size={b},type={kind}\n" for a, b, kind in places)
    subprocess.run(["sfdisk", "-q", "/run/store/disk.img"], input=table, text=True, check=True)
    run("losetup", "--partscan", "/dev/loop0", "/run/store/disk.img")
    run("mkfs.ext4", "-q", "/dev/loop0p1")
    lvm("pvcreate", "-q", "/dev/loop0p2", "/dev/loop0p3")
    lvm("vgcreate", "-q", "-s", "1M", "vg", "/dev/loop0p2", "/dev/loop0p3")
    plain = ("-q", "-y", "-Zn", "-Wn")
    lvm("lvcreate", *plain, "-n", "root", "-L", "12M", "vg", "/dev/loop0p2")
    lvm("lvcreate", *plain, "-n", "swap", "-L", "4M", "vg", "/dev/loop0p2")
    lvm("lvextend", "-q", "-L", "20M", "vg/root", "/dev/loop0p2")
    lvm("lvextend", "-q", "-L", "24M", "vg/root", "/dev/loop0p3")
    lvm("lvcreate", *plain, "-n", "idle", "-L", "5M", "vg", "/dev/loop0p3")
    lvm("lvcreate", *plain, "-an", "-n", "off", "-L", "3M", "vg", "/dev/loop0p3")
    lvm("lvcreate", *plain, "-n", "fast", "-i2", "-I", "64k", "-L", "8M", "vg")
    lvm("lvcreate", *plain, "-n", "old", "-L", "4M", "vg", "/dev/loop0p3")
    lvm("lvcreate", "-q", "-y", "-s", "-n", "before", "-L", "4M", "vg/old")
    lvm(
        "lvcreate",
        "-q",
        "-y",
        "--type",
        "mirror",
        "--mirrorlog",
        "core",
        "-m1",
        "-n",
        "twice",
        "-L",
        "4M",
        "vg",
    )


def compare() -> None:
    """Each volume as device-mapper shows it, and as it is read without."""
    lvm("lvchange", "-ay", "vg/off")
    for name in VOLUMES:
        fill(f"/dev/mapper/vg-{name}", name)
    run("sync")
    FOUND["kernel"] = {name: digest(f"/dev/mapper/vg-{name}") for name in VOLUMES}
    lvm("lvchange", "-an", "vg/off")
    run("blockdev", "--flushbufs", "/dev/loop0")
    ours: dict[str, str] = {}
    errors: dict[str, str] = {}
    with open_device("/dev/loop0") as disk:
        for name in (*VOLUMES, "before", "twice"):
            try:
                with find_volume(disk, name).open() as volume:
                    ours[name] = hashlib.sha256(volume.pread(volume.size, 0)).hexdigest()
            except VssSnapError as exc:
                errors[name] = f"{type(exc).__name__}: {exc.message}"
    FOUND["ours"], FOUND["errors"] = ours, errors
    FOUND["segments"] = lvm(
        "pvs", "--segments", "--noheadings", "-o", "pvseg_start,pvseg_size,lv_name,segtype"
    )


def write(at: Path, stop: threading.Event, began: threading.Event) -> None:
    """A database that is written all the time."""
    with contextlib.closing(sqlite3.connect(at)) as base:
        base.execute("pragma synchronous=full")
        base.execute("create table entries (number integer primary key, content blob)")
        base.execute("create index contents on entries (content)")
        while not stop.is_set():
            with base:
                base.executemany(
                    "insert into entries (content) values (?)", [(os.urandom(200),) for _ in range(20)]
                )
                (last,) = base.execute("select max(number) from entries").fetchone()
                base.execute("delete from entries where number % 7 = 3 and number < ?", (last - 400,))
            began.set()


def image() -> None:
    """The disk in use is imaged, whole."""
    run("mkfs.ext4", "-q", "-F", "/dev/mapper/vg-root")
    run("mkswap", "/dev/mapper/vg-swap")
    run("swapon", "/dev/mapper/vg-swap")
    at = Path("/run/root")
    at.mkdir()
    run("mount", "/dev/mapper/vg-root", str(at))
    (at / "file").write_bytes(b"kept " * 100_000)
    refused = failure(lambda: DiskSnapshot("/dev/loop0").create())
    FOUND["refused"] = refused
    stop, began = threading.Event(), threading.Event()
    writer = threading.Thread(target=write, args=(at / "base", stop, began))
    writer.start()
    began.wait(60)
    try:
        with DiskSnapshot("/dev/loop0", uncovered=Uncovered.LEAVE_OUT) as snapshot:
            FOUND["volumes"] = {str(key): name for key, name in snapshot.volumes.items()}
            FOUND["uncovered"] = {str(key): why for key, why in snapshot.uncovered.items()}
            FOUND["provider"] = snapshot.snapshot.provider if snapshot.snapshot else ""
            began.clear()
            began.wait(60)
            with snapshot.open() as reader:
                save_image(reader, "/tmp/disk.vsnap")
                FOUND["exclusions"] = reader.metadata.exclusions
        with open("/run/store/disk.img", "rb") as source, open("/run/store/naive.img", "xb") as target:
            while block := source.read(64 << 10):
                target.write(block)
    finally:
        stop.set()
        writer.join()
    with DiskSnapshot("/dev/loop0", uncovered=Uncovered.LEAVE_OUT) as snapshot, snapshot.open() as reader:
        lvm("lvcreate", "-q", "-y", "-Zn", "-Wn", "-an", "-n", "new", "-L", "1M", "vg")
        FOUND["changed"] = failure(reader.confirm)
    with DiskSnapshot("/dev/loop0", uncovered=Uncovered.READ) as snapshot, snapshot.open() as reader:
        lvm("lvchange", "-ay", "vg/off")
        FOUND["activated"] = failure(reader.confirm)
    run("umount", str(at))
    run("swapoff", "/dev/mapper/vg-swap")
    lvm("vgchange", "-q", "-an", "vg")
    run("losetup", "--detach", "/dev/loop0")


def bare() -> None:
    """A disk without a table that is a physical volume."""
    with open("/run/store/bare.img", "xb") as file:
        file.truncate(24 * MIB)
    run("losetup", "/dev/loop1", "/run/store/bare.img")
    lvm("pvcreate", "-q", "/dev/loop1")
    lvm("vgcreate", "-q", "-s", "1M", "other", "/dev/loop1")
    lvm("lvcreate", "-q", "-y", "-Zn", "-Wn", "-n", "data", "-L", "16M", "other")
    run("mkfs.ext4", "-q", "/dev/mapper/other-data")
    at = Path("/run/data")
    at.mkdir()
    run("mount", "/dev/mapper/other-data", str(at))
    (at / "file").write_text("before")
    with DiskSnapshot("/dev/loop1") as snapshot:
        FOUND["bare"] = {str(key): name for key, name in snapshot.volumes.items()}
        (at / "file").write_text("after!")
        run("sync", "-f", str(at))
        with snapshot.open() as reader:
            save_image(reader, "/mnt/bare.vsnap")
    run("umount", str(at))
    lvm("vgchange", "-q", "-an", "other")
    run("losetup", "--detach", "/dev/loop1")


def look(disk: str) -> dict[str, object]:
    """What LVM, e2fsck and the database say of a disk."""
    said: dict[str, object] = {}
    run("losetup", "--partscan", "/dev/loop0", disk)
    said["ck"] = lvm("pvck", "/dev/loop0p2") + lvm("vgck", "vg")
    lvm("vgchange", "-q", "-ay", "vg")
    said["idle"] = digest("/dev/mapper/vg-idle")
    said["off"] = digest("/dev/mapper/vg-off")
    checked = subprocess.run(
        ["e2fsck", "-fy", "/dev/mapper/vg-root"], capture_output=True, text=True, check=False
    )
    said["e2fsck"] = [checked.returncode, checked.stdout[-2000:]]
    with contextlib.suppress(AssertionError):
        run("mount", "/dev/mapper/vg-root", "/run/root")
        try:
            with contextlib.closing(sqlite3.connect("/run/root/base")) as base:
                said["integrity"] = base.execute("pragma integrity_check").fetchone()[0]
                said["entries"] = base.execute("select count(*) from entries").fetchone()[0]
        except sqlite3.Error as exc:
            said["integrity"] = str(exc)
        said["file"] = (Path("/run/root") / "file").read_bytes() == b"kept " * 100_000
        run("umount", "/run/root")
    lvm("vgchange", "-q", "-an", "vg")
    run("losetup", "--detach", "/dev/loop0")
    return said


def main() -> None:
    Path("/run/lock").mkdir(exist_ok=True)
    make()
    compare()
    image()
    with open_image("/tmp/disk.vsnap") as saved:
        restore_image(saved, "/run/store/restored.img")
    FOUND["restored"] = look("/run/store/restored.img")
    FOUND["naive"] = look("/run/store/naive.img")
    bare()


try:
    main()
finally:
    Path("/mnt/found.json").write_text(json.dumps(FOUND, indent=1))
