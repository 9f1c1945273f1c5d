"""The volumes that are imaged: made once, from a seed and the files of this system.

Real files matter: how well they compress and how they lie on the disk decides what a copy
costs.  They are picked from the system's own trees by a hash of their paths, so a machine with
the same packages makes the same volumes; `Volumes.describe` says what they hold.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import BenchmarkError

SEED = 20240229
MIB = 1 << 20
GIB = 1 << 30
_TREES = ("/usr/lib", "/usr/share", "/usr/bin", "/usr/include", "/usr/libexec")


class Volumes:
    """The volumes of one size, in a folder; what is there already is used as it is.

    Args of the constructor: the folder, and the bytes of a volume (the other sizes follow from it).
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        self.folder = folder / f"{size // MIB}m"
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def ext4(self) -> Path:
        """An ext4 volume, 65 % full of real files, with deleted leftovers."""
        return self._made("ext4.img", self._make_ext4)

    @property
    def ntfs(self) -> Path:
        """The same files on NTFS; needs root, for a FUSE mount."""
        return self._made("ntfs.img", self._make_ntfs)

    @property
    def random(self) -> Path:
        """Incompressible, half a volume's size."""
        return self._made("random.img", self._make_random)

    @property
    def database(self) -> tuple[Path, Path]:
        """A file of 8 KiB pages, and one with 2 % of its 64 KiB blocks changed; a quarter of a volume."""
        return self._made("db-0.img", self._make_database), self._made("db-1.img", self._change_database)

    def sparse(self, size: int) -> Path:
        """A file of any size with 64 MiB of data in 16 places."""
        return self._made(f"sparse-{size // GIB}g.img", lambda path: _make_sparse(path, size))

    def shadow(self, longest: int) -> Path:
        """A volume with three shadow copies; ``longest`` blocks were overwritten at once, or fewer."""
        from benchmarks.shadow_volume import write

        return self._made(f"shadow-{longest}.img", lambda path: write(path, self.size, longest))

    def describe(self) -> list[str]:
        """A line for each volume that was made."""
        lines = []
        for path in sorted(self.folder.glob("*.img")):
            found = path.stat()
            lines.append(
                f"{path.name}: {found.st_size // MIB} MiB, {found.st_blocks * 512 // MIB} MiB of them stored"
            )
        return lines

    def _made(self, name: str, make: object) -> Path:
        path = self.folder / name
        if not path.exists():
            print(f"  making {name} ({self.size // MIB} MiB volumes)", flush=True)
            partial = self.folder / f"{name}.partial"
            partial.unlink(missing_ok=True)
            make(partial)  # type: ignore[operator]  # one of the methods below
            os.replace(partial, path)
        return path

    # The file systems.

    def _tree(self) -> tuple[Path, list[str]]:
        """A folder of files for a volume, and the names of those that are to be deleted again."""
        tree = self.folder / "tree"
        stale_list = self.folder / "tree.stale"
        if not stale_list.exists():
            shutil.rmtree(tree, ignore_errors=True)
            stale = _fill(tree, self.size)
            stale_list.write_text("\n".join(stale))
        return tree, stale_list.read_text().split("\n")

    def _make_ext4(self, path: Path) -> None:
        tree, stale = self._tree()
        _sparse_file(path, self.size)
        quiet = (
            "-q",
            "-F",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=0,hash_seed=00000000-0000-4000-8000-000000000001",
        )
        _run(
            "mke2fs",
            "-t",
            "ext4",
            *quiet,
            "-U",
            "00000000-0000-4000-8000-000000000002",
            "-d",
            str(tree),
            str(path),
        )
        commands = self.folder / "debugfs.txt"
        commands.write_text("".join(f"rm /{name}\n" for name in stale))
        _run("debugfs", "-w", "-f", str(commands), str(path))
        commands.unlink()

    def _make_ntfs(self, path: Path) -> None:
        tree, stale = self._tree()
        _sparse_file(path, self.size)
        _run("mkntfs", "-F", "-Q", "-q", str(path))
        with _mounted_ntfs(path, self.folder / "mnt") as mounted:
            for folder in sorted(tree.iterdir()):
                shutil.copytree(folder, mounted / folder.name)
            for name in stale:
                (mounted / name).unlink()
        path.chmod(0o600)

    # Other content.

    def _make_random(self, path: Path) -> None:
        source = random.Random(SEED)
        with open(path, "wb") as file:
            file.writelines(source.randbytes(MIB) for _ in range(self.size // 2 // MIB))

    def _make_database(self, path: Path) -> None:
        source = random.Random(SEED + 1)
        words = [source.randbytes(source.randrange(3, 9)).hex().encode() for _ in range(4000)]
        with open(path, "wb") as file:
            file.writelines(_page(source, words, number) for number in range(self.size // 4 // 8192))

    def _change_database(self, path: Path) -> None:
        source = random.Random(SEED + 2)
        shutil.copyfile(self._made("db-0.img", self._make_database), path)
        blocks = path.stat().st_size >> 16
        with open(path, "r+b") as file:
            for block in sorted(source.sample(range(blocks), blocks // 50)):
                file.seek((block << 16) + source.randrange(8) * 8192 + 64)
                file.write(source.randbytes(2048))


def _page(source: random.Random, words: list[bytes], number: int) -> bytes:
    head = number.to_bytes(8, "little") + source.randbytes(16)
    rows = b" ".join(source.choices(words, k=520))
    return (head + rows).ljust(8192, b"\0")[:8192]


def _fill(tree: Path, size: int) -> list[str]:
    """Fill a folder to 74 % of a volume; a tenth of the volume is named as stale."""
    stale: list[str] = []
    stale_bytes = 0
    for number, path in enumerate(_real_files(size * 54 // 100)):
        name = f"{number % 97:02}/{number:05}-{os.path.basename(path)[-60:]}"
        name = "".join(c if c.isascii() and (c.isalnum() or c in "/.-_") else "_" for c in name)
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tree / name)
        if number % 6 == 0 and stale_bytes < size // 10:
            stale.append(name)
            stale_bytes += (tree / name).stat().st_size
    source = random.Random(SEED + 3)
    (tree / "media").mkdir()
    for number in range(max(1, size // 10 // (8 * MIB))):
        (tree / "media" / f"{number:03}.bin").write_bytes(source.randbytes(8 * MIB))
    (tree / "logs").mkdir()
    for number in range(max(1, size // 40 // (4 * MIB))):
        lines = (
            f"12:{n % 60:02} host{source.randrange(9)} unit[{n}]: event {source.randrange(99999)}\n"
            for n in range(70000)
        )
        (tree / "logs" / f"{number:03}.log").write_text("".join(lines))
    (tree / "zeros").mkdir()
    (tree / "zeros" / "preallocated.bin").write_bytes(bytes(size // 40))
    (tree / "sqlite").mkdir()
    with contextlib.closing(sqlite3.connect(tree / "sqlite" / "data.db")) as connection, connection:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b BLOB)")
        rows = (
            (n, f"name {source.randrange(10**6)}", source.randbytes(64)) for n in range(size // 20 // 110)
        )
        connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    return stale


def _real_files(total: int) -> Iterator[str]:
    found: list[tuple[bytes, str, int]] = []
    for top in _TREES:
        for folder, folders, names in os.walk(top):
            folders.sort()
            for name in names:
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    state = os.lstat(path)
                    if os.path.isfile(path) and not os.path.islink(path) and 0 < state.st_size <= 32 * MIB:
                        found.append((hashlib.sha256(os.fsencode(path)).digest(), path, state.st_size))
    taken = 0
    for _, path, length in sorted(found):
        if taken + length > total:
            continue
        taken += length
        yield path
        if taken > total - 64 * 1024:
            return


def _make_sparse(path: Path, size: int) -> None:
    source = random.Random(SEED + 4)
    _sparse_file(path, size)
    with open(path, "r+b") as file:
        for place in range(16):
            file.seek(size // 16 * place)
            file.write(source.randbytes(4 * MIB))


def _sparse_file(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size)


@contextlib.contextmanager
def _mounted_ntfs(path: Path, place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    _run("ntfs-3g", "-o", "big_writes", str(path), str(place))
    try:
        yield place
    finally:
        _run("umount", str(place))
        place.rmdir()


def _run(*command: str) -> None:
    environment = os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise BenchmarkError(
            f"{command[0]} is not installed: run `python -m benchmarks --install` as root"
        ) from None
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
