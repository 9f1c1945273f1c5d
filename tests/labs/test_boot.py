"""A disk composed of its own table and of readers of its partitions starts a machine."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from foreign import sfdisk
from loops import sparse_file
from requirements import require_lab, require_program
from vsssnap import DiskReader, Snapshot, open_device, open_image, restore_image, save_image
from vsssnap.volumes import Partitions

pytestmark = pytest.mark.lab

MIB = 1 << 20


def boot_code(lba: int) -> bytes:
    """Real-mode code for a boot sector: print what is in a sector on the serial line, and stop.

    It reads one sector to 0x7E00 by INT 13h, function 42h, writes its bytes up to the first zero to
    port 0x3F8, and 0x31 to port 0x501, where QEMU's isa-debug-exit ends the machine with code 99.
    """
    code = bytearray(
        b"\x31\xc0\x8e\xd8\x8e\xd0\xbc\x00\x7c"  # xor ax, ax; ds = ss = ax; mov sp, 0x7c00
        b"\xbe\x00\x00"  # mov si, packet
        b"\xb4\x42\xcd\x13"  # mov ah, 0x42; int 0x13
        b"\x72\x0d"  # jc stop
        b"\xbe\x00\x7e"  # mov si, 0x7e00
        b"\xac\x84\xc0\x74\x06"  # next: lodsb; test al, al; jz stop
        b"\xba\xf8\x03\xee\xeb\xf5"  # mov dx, 0x3f8; out dx, al; jmp next
        b"\xba\x01\x05\xb0\x31\xee"  # stop: mov dx, 0x501; mov al, 0x31; out dx, al
        b"\xf4\xeb\xfd"  # hlt; jmp to it
    )
    code[10:12] = (0x7C00 + len(code)).to_bytes(2, "little")
    return bytes(code) + b"\x10\0\x01\0\x00\x7e\0\0" + lba.to_bytes(8, "little")


def started(disk: Path, format: str = "raw") -> str:
    """What a machine that starts from the disk says; QEMU reads the format itself."""
    done = subprocess.run(
        [
            require_program("qemu-system-x86_64"),
            *("-accel", "tcg", "-m", "32", "-nodefaults", "-display", "none", "-no-reboot"),
            *("-serial", "stdio", "-device", "isa-debug-exit,iobase=0x501,iosize=1"),
            *("-drive", f"file={disk},format={format},if=ide,snapshot=on"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 99, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vsssnap-boot-") as name:
        yield Path(name)


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_a_composed_disk_starts_and_finds_the_snapshots_of_its_volumes(label: str, folder: Path) -> None:
    require_lab("qemu-system-x86_64", "sfdisk", root=False)
    disk = sparse_file(folder / "disk", 8 * MIB)
    sfdisk(disk, f"label: {label}\nstart=2048,size=4096\nstart=8192,size=4096\n")
    with disk.open("r+b") as file:
        file.write(boot_code(8192))
        file.seek(8192 * 512)
        file.write(b"what the live disk has\n\0")
    volume = folder / "volume"
    volume.write_bytes(b"hello from the snapshot\n\0".ljust(2 * MIB, b"\xaa"))
    image, copy = folder / "disk.vsnap", folder / "copy.raw"
    with Snapshot(volume) as s, open_device(disk) as base:
        first = Partitions(base)[1].open()
        whole = DiskReader(base, {1: first, 2: s.open()})
        save_image(whole, image)
        for suffix in ("vhdx", "vhd", "vmdk", "qcow2"):
            assert not save_image(whole, folder / f"server.{suffix}").wrapped
    with open_image(image) as saved:
        restore_image(saved, copy)
    assert started(disk) == "what the live disk has\n"
    assert started(copy) == "hello from the snapshot\n"
    for suffix, format in (("vhdx", "vhdx"), ("vhd", "vpc"), ("vmdk", "vmdk"), ("qcow2", "qcow2")):
        assert started(folder / f"server.{suffix}", format) == "hello from the snapshot\n"
