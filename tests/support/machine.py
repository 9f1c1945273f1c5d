"""A machine of its own: Debian's kernel in QEMU, with this machine's programs, and disks that are files.

For what the kernel here may not have: device-mapper.  It sees the root of this machine read-only, and one
folder that both can write.  No network, no KVM; it takes about 20 s until the first program runs.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from checkout import PACKAGE
from requirements import require_program, unavailable

_SHARED = "/mnt"  # the folder, inside
_DRIVERS = ("virtio_pci", "virtio_blk", "9p", "9pnet_virtio", "crc32c_generic", "loop", "ext4", "xfs")
_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /host
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /$module; done
options=trans=virtio,version=9p2000.L,msize=262144
/bin/busybox mount -t 9p -o ro,cache=loose,$options root /host || /bin/busybox poweroff -f
for each in proc sys dev; do /bin/busybox mount -o bind /$each /host/$each; done
for each in tmp run mnt; do /bin/busybox mount -t tmpfs tmpfs /host/$each; done
/bin/busybox mount -t 9p -o rw,$options shared /host{shared}
/bin/busybox chroot /host /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp TMPDIR=/tmp \\
    PYTHONPATH={shared}/src PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8 \\
    {python} -W error {shared}/scene.py >/dev/ttyS1 2>&1
echo "the scene ended with $?" >/dev/ttyS1
/bin/busybox sync
/bin/busybox poweroff -f
"""


def play(scene: Path, folder: Path, *, disks: Sequence[Path] = (), modules: Sequence[str] = ()) -> str:
    """Run a Python program in a machine; what it prints.

    Args:
        scene: The program; it finds ``vsssnap``, and what is beside it is not there.
        folder: Empty; it is ``/mnt`` inside.
        disks: Files that are ``/dev/vda`` and so on inside.
        modules: Of the kernel, besides those that are always loaded.
    """
    kernel, libraries = _kernel()
    shared = folder / "shared"
    shutil.copytree(PACKAGE, shared / "src" / "vsssnap", ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(shared / "src", quiet=2)  # a pure emulation would take half a minute for it
    shutil.copy(scene, shared / "scene.py")
    files = {"bin/busybox": Path(require_program("busybox"))}
    loaded = list(_in_order((*_DRIVERS, *modules), libraries))
    files |= {each.name: each for each in loaded}
    script = _INIT.format(
        modules=" ".join(each.name for each in loaded),
        shared=_SHARED,
        python=os.path.realpath(sys.prefix) + "/bin/python",
    )
    initial = folder / "initramfs"
    initial.write_bytes(_archive(script, files))
    command = [
        require_program("qemu-system-x86_64"),
        *("-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024", "-nodefaults", "-display", "none"),
        *("-no-reboot", "-kernel", str(kernel), "-initrd", str(initial)),
        *("-append", "console=ttyS0 quiet panic=-1"),
        *("-serial", f"file:{folder / 'kernel.log'}", "-serial", "stdio"),
        *("-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"),
        *("-virtfs", f"local,path={shared},mount_tag=shared,security_model=none,multidevs=remap"),
    ]
    for disk in disks:
        command += ["-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=840, stdin=subprocess.DEVNULL
    )
    log = (folder / "kernel.log").read_text(errors="replace")[-4000:]
    assert "the scene ended with 0" in done.stdout, f"{done.stdout}\n{done.stderr}\n{log}"
    return done.stdout


def _kernel() -> tuple[Path, Path]:
    """A kernel of Debian's, and the folder of its modules."""
    images = sorted(Path("/boot").glob("vmlinuz-*"), reverse=True)
    found = [(each, Path("/lib/modules") / each.name.removeprefix("vmlinuz-")) for each in images]
    found = [(image, modules) for image, modules in found if (modules / "modules.dep").is_file()]
    if not found:
        unavailable("no kernel with its modules in /boot: install linux-image-amd64")
    return found[0]


def _in_order(names: Sequence[str], libraries: Path) -> Iterator[Path]:
    """The files of modules, each behind those that it needs."""
    needed: dict[str, list[str]] = {}
    paths: dict[str, str] = {}
    for line in (libraries / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needed[path] = others.split()
        paths[re.sub(r"\.ko.*", "", Path(path).name).replace("-", "_")] = path
    listed: dict[str, None] = {}
    for name in names:
        path = paths[name.replace("-", "_")]
        listed |= dict.fromkeys((*reversed(needed[path]), path))
    return (libraries / path for path in listed)


def _archive(script: str, files: dict[str, Path]) -> bytes:
    """An initramfs in the form that the kernel documents (driver-api/early-userspace/buffer-format)."""
    parts = bytearray()
    entries: list[tuple[str, int, bytes]] = [("bin", 0o40755, b"")]
    entries += [(name, 0o100755, path.read_bytes()) for name, path in files.items()]
    entries += [("init", 0o100755, script.encode()), ("TRAILER!!!", 0, b"")]
    for number, (name, mode, content) in enumerate(entries, 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        parts += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        parts += bytes(-len(parts) % 4)
        parts += content
        parts += bytes(-len(parts) % 4)
    return bytes(parts)
