"""Loop devices, file systems and mounts for labs; every context manager cleans up behind itself.

Call `requirements.require_lab` first: all of this needs root.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from requirements import require_program
from waiting import until


def run(*command: str | os.PathLike[str]) -> str:
    """Run a program and return its output; a failure shows what it printed."""
    name, *arguments = [os.fspath(part) for part in command]
    done = subprocess.run([require_program(name), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{name} {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


def sparse_file(path: Path, size: int) -> Path:
    """A new file of zeros that takes no space."""
    with path.open("xb") as file:
        file.truncate(size)
    return path


@contextlib.contextmanager
def loop_device(
    backing: Path,
    *,
    sector_size: int = 512,
    readonly: bool = False,
    partitions: bool = False,
    part: tuple[int, int] | None = None,
) -> Iterator[str]:
    """Attach a file as a loop device.

    Args:
        backing: The file; it is left as it is afterwards.
        sector_size: Logical sector size in bytes.
        readonly: Attach it read-only.
        partitions: Have the kernel look for partitions (``/dev/loopNp1``).
        part: First byte and length of what is attached; all by default.

    Yields:
        The path of the device.
    """
    options = ["--sector-size", str(sector_size)]
    options += ["--read-only"] if readonly else []
    options += ["--partscan"] if partitions else []
    options += ["--offset", str(part[0]), "--sizelimit", str(part[1])] if part else []
    device = run("losetup", "--find", "--show", *options, backing).strip()
    try:
        yield device
    finally:
        detach(device)


@contextlib.contextmanager
def partition(device: str, number: int, first_sector: int, sectors: int) -> Iterator[str]:
    """Tell the kernel of a partition on a loop device made with ``partitions=True``.

    By its own request and without a partition table, which not every kernel reads.

    Yields:
        The path of the partition.
    """
    run("addpart", device, str(number), str(first_sector), str(sectors))
    try:
        yield f"{device}p{number}"
    finally:
        run("delpart", device, str(number))


def detach(device: str) -> None:
    """Take a loop device away and wait until it is gone."""
    run("losetup", "--detach", device)
    # Detaching is put off while anybody has the device open.
    backing = Path("/sys/block") / Path(device).name / "loop" / "backing_file"
    assert until(lambda: not backing.exists()), f"{device} is still attached: something holds it open"


def make_file_system(kind: str, device: str | Path, *options: str) -> None:
    """Make a file system (``"ext4"``, ``"xfs"`` with reflinks, ``"btrfs"``) on a device or file."""
    defaults: Sequence[str] = {
        "ext4": ("-q", "-F"),
        "xfs": ("-q", "-f", "-m", "reflink=1"),
        "btrfs": ("-q", "-f"),
    }.get(kind, ())
    run(f"mkfs.{kind}", *defaults, *options, device)


@contextlib.contextmanager
def mounted(device: str | Path, at: Path, *, options: str = "", kind: str = "") -> Iterator[Path]:
    """Mount a device at a folder, which is made if there is none.

    Yields:
        The mount point.
    """
    at.mkdir(parents=True, exist_ok=True)
    arguments = ["-t", kind] if kind else []
    arguments += ["-o", options] if options else []
    run("mount", *arguments, device, at)
    try:
        yield at
    finally:
        unmount(at)


@contextlib.contextmanager
def fused(
    program: str,
    volume: Path,
    at: Path,
    *options: str,
    sector_size: int = 512,
    part: tuple[int, int] | None = None,
) -> Iterator[Path]:
    """A volume, or the part of a disk that is one, mounted by a program in user space.

    Over a device, for then umount waits until the program has written everything; over a file it does not.
    """
    at.mkdir()
    with loop_device(volume, sector_size=sector_size, part=part) as device:
        run(program, *options, device, at)
        try:
            yield at
        finally:
            unmount(at)
            at.rmdir()


def unmount(at: Path) -> None:
    """Unmount, waiting for those who are about to leave."""
    said = ""

    def done() -> bool:
        nonlocal said
        tried = subprocess.run(
            [require_program("umount"), str(at)], capture_output=True, text=True, check=False
        )
        said = tried.stderr
        return not tried.returncode

    assert until(done), f"umount {at}: {said}"


@contextlib.contextmanager
def file_system(kind: str, folder: Path, size: int, *, name: str = "volume") -> Iterator[tuple[Path, str]]:
    """A fresh file system on a loop device over a sparse file, mounted.

    Args:
        kind: As for `make_file_system`.
        folder: Where the backing file ``NAME.img`` and the mount point ``NAME`` are made.
        size: Bytes; XFS needs 300 MiB, btrfs 110 MiB.
        name: Of both.

    Yields:
        The mount point and the loop device.
    """
    backing = sparse_file(folder / f"{name}.img", size)
    with contextlib.ExitStack() as stack:
        stack.callback(backing.unlink)
        device = stack.enter_context(loop_device(backing))
        make_file_system(kind, device)
        point = stack.enter_context(mounted(device, folder / name))
        yield point, device
