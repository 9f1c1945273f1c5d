"""Disks and volumes that other programs made, for tests of what reads them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from requirements import require_corpus, require_program


def corpus_file(name: str, folder: Path) -> Path:
    """A file of the corpus, unpacked."""
    import zstandard

    target = folder / Path(name).name
    with (require_corpus() / "files" / f"{name}.zst").open("rb") as packed, target.open("xb") as plain:
        zstandard.ZstdDecompressor().copy_stream(packed, plain)
    return target


def sfdisk(disk: Path | str, script: str) -> None:
    """Make a partition table as an sfdisk script says."""
    done = subprocess.run(
        [require_program("sfdisk"), "--no-reread", "--no-tell-kernel", "--wipe", "always", str(disk)],
        input=script,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},  # else names outside of ASCII are lost
    )
    assert done.returncode == 0, done.stdout + done.stderr


def assert_sound(disk: Path | str) -> None:
    """Sgdisk and sfdisk find nothing wrong with a partition table."""
    said = run_quietly("sgdisk", "--verify", disk)
    assert "No problems found" in said, said
    assert "No errors detected" in run_quietly("sfdisk", "--verify", disk)


def sfdisk_table(disk: Path | str, *, nested: str = "") -> dict[str, Any]:
    """The table as sfdisk reads it, or the one of another kind (``"dos"``) that guards it."""
    more = ["--label-nested", nested] if nested else []
    done = subprocess.run(
        [require_program("sfdisk"), "--json", *more, str(disk)], capture_output=True, text=True, check=True
    )
    table: dict[str, Any] = json.loads(done.stdout)["partitiontable"]
    return table


def mmls_ranges(disk: Path | str, sector_size: int = 512) -> set[tuple[int, int]]:
    """First and last sector of every partition, as mmls of the Sleuth Kit reads them."""
    done = subprocess.run(
        [require_program("mmls"), "-b", str(sector_size), str(disk)],
        capture_output=True,
        text=True,
        check=True,
    )
    ranges = set()
    for line in done.stdout.splitlines():
        words = line.split()
        # "004:  000       0000002048 ..." or, under MBR, "002:  000:000   0000000001 ..."
        if len(words) > 4 and words[0].endswith(":") and words[1].replace(":", "").isdigit():
            ranges.add((int(words[2]), int(words[3])))
    return ranges


def mkntfs(volume: Path, size: int, *options: str, label: str = "") -> Path:
    """A new NTFS volume in a file."""
    with volume.open("xb") as file:
        file.truncate(size)
    run_quietly("mkntfs", "--force", "--quick", "--quiet", "--label", label, *options, volume)
    return volume


def ntfs_put(volume: Path, content: bytes, name: str, folder: Path) -> None:
    """Write a file into the root of an NTFS volume, without mounting it."""
    source = folder / "content"
    source.write_bytes(content)
    run_quietly("ntfscp", "--force", "--quiet", volume, source, name)
    source.unlink()


def ntfs_bitmap(volume: Path) -> bytes:
    """$Bitmap as ntfscat reads it."""
    done = subprocess.run(
        [require_program("ntfscat"), "-i", "6", str(volume)], capture_output=True, check=True
    )
    return done.stdout


def ntfs_runs(volume: Path, name: str) -> list[tuple[int, int]]:
    """First cluster and count of the runs of a file's data, as ntfscluster shows them."""
    runs, inside = [], False
    for line in run_quietly("ntfscluster", "--filename", name, volume).splitlines():
        words = line.split()
        if words[:1] and words[0].startswith("0x"):
            inside = words[0] == "0x80"
        elif inside and len(words) == 3 and words[1].isdigit():  # a place of -1 or -2 is none
            runs.append((int(words[1]), int(words[2])))
    return runs


def run_quietly(name: str, *arguments: str | Path) -> str:
    """Run a program that is to succeed; its output."""
    done = subprocess.run(
        [require_program(name), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{name} {arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def free_ranges(bitmap: bytes, count: int, unit: int, base: int = 0) -> list[tuple[int, int]]:
    """Free ranges in bytes, offset and end, of a bitmap; bit by bit, in the plainest way."""
    found: list[tuple[int, int]] = []
    for block in range(count):
        if not bitmap[block // 8] >> (block % 8) & 1:
            start = base + block * unit
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], start + unit)
            else:
                found.append((start, start + unit))
    return found


def tsk_free(volume: Path, unit: int, kind: str) -> list[tuple[int, int]]:
    """Free ranges in bytes, offset and end, as blkls of the Sleuth Kit lists them.

    Args:
        volume: The volume.
        unit: Bytes of what the Sleuth Kit counts: a block of ext and NTFS, a sector of FAT and exFAT.
        kind: Its name of the file system (``"fat"``).
    """
    found: list[tuple[int, int]] = []
    for line in run_quietly("blkls", "-l", "-f", kind, volume).splitlines()[3:]:
        number, _, state = line.partition("|")
        assert state == "f"
        start = int(number) * unit
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], start + unit)
        else:
            found.append((start, start + unit))
    return found


def dumpe2fs_free(volume: Path, cluster: int) -> list[tuple[int, int]]:
    """Free ranges in bytes, offset and end, as dumpe2fs lists them group by group.

    Args:
        volume: The volume.
        cluster: Bytes; dumpe2fs names a free cluster by its first block.
    """
    said = run_quietly("dumpe2fs", volume)
    size = int(said[said.index("Block size:") :].split()[2])
    found: list[tuple[int, int]] = []
    for line in said.splitlines():
        if not line.startswith("  Free blocks: "):
            continue
        for part in line.removeprefix("  Free blocks: ").split(","):
            first, _, last = part.strip().partition("-")
            if first:
                start, end = int(first) * size, int(last or first) * size + cluster
                if found and found[-1][1] == start:
                    found[-1] = (found[-1][0], end)
                else:
                    found.append((start, end))
    return found


def free_of(volume: Path) -> list[tuple[int, int]]:
    """Free ranges in bytes, offset and end, as the code under test has them; its map is trusted."""
    from vsssnap import ExtentKind, open_device
    from vsssnap.volumes import filesystem

    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        assert fs.doubt == ""
        return [(each.offset, each.end) for each in fs.allocation() if each.kind is ExtentKind.HOLE]


def restart_page(*, closed: bool, lsn: int = 5) -> bytes:
    """A restart page with its fix-ups, as the format has it."""
    page = bytearray(4096)
    page[0:4] = b"RSTR"
    page[4:8] = (30).to_bytes(2, "little") + (9).to_bytes(2, "little")
    page[16:24] = (4096).to_bytes(4, "little") * 2
    page[24:26] = (48).to_bytes(2, "little")
    page[48:64] = lsn.to_bytes(8, "little") + b"\1\0\xff\xff\0\0" + (2 if closed else 0).to_bytes(2, "little")
    page[30:32] = b"\7\0"
    for end in range(512, 4097, 512):
        page[end - 2 : end] = b"\7\0"
    return bytes(page)


def closed_by_windows(volume: Path) -> bytes:
    """An NTFS volume whose log says that it was closed; mkntfs makes one that says nothing."""
    content = bytearray(volume.read_bytes())
    ((lcn, _),) = ntfs_runs(volume, "$LogFile")
    cluster = int.from_bytes(content[11:13], "little") * content[13]
    content[lcn * cluster : lcn * cluster + 8192] = restart_page(closed=True) * 2
    return bytes(content)
