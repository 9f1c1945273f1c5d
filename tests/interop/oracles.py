"""Programs and libraries that are not ours and read disk images: what each reads right, and how it is asked.

`READS` is data: the kinds of image that each family reads right, as tried on images whose content
is known.  A family that gives wrong bytes for a kind without an error is left out there, with the
reason beside it; so is one that refuses the kind.  Tests ask `readers` for a kind, let two families
or more read, and compare.  Every oracle runs in a process of its own under a memory limit and a
deadline: some take all the memory there is on images they do not understand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Final

from requirements import require_program

READS: Final[dict[str, tuple[str, ...]]] = {
    "vhd": ("qemu", "libyal", "dissect", "7zz"),
    # qemu, dissect: ignore the parent, without an error.  libyal: zeros instead of the parent's
    # sectors where those begin inside a byte of a block's bitmap; right where none do.
    "vhd-diff": ("libyal", "7zz"),
    "vhdx": ("qemu", "libyal", "dissect", "7zz"),
    "vhdx-odd": ("qemu", "libyal", "dissect"),  # no multiple of 8 sectors; 7zz: refuses, also qemu's own
    "vhdx-4kn": ("libyal", "dissect", "7zz"),  # sectors of 4096 bytes; qemu: refuses
    "vhdx-4kn-odd": ("libyal", "dissect"),
    "vhdx-diff": ("libyal", "dissect", "7zz"),  # qemu: refuses
    "vhdx-diff-odd": ("libyal", "dissect"),
    "vhdx-diff-zero": ("dissect", "7zz"),  # blocks of state ZERO; libyal: shows the parent through
    "vhdx-diff-zero-odd": ("dissect",),
    # A child of a child, of partial blocks.  dissect: reads a bitmap wrong from a sector on that is
    # no multiple of 8.
    "vhdx-diff-chain": ("7zz",),
    # libyal, dissect: stale content, without an error; 7zz: refuses; qemu: replays only the end of a
    # log that goes around its ring, and refuses entries of more than one sector of descriptors.
    "vhdx-log": ("qemu-replay",),
    "qcow2": ("qemu", "libyal", "dissect", "7zz"),
    "qcow2-zlib": ("qemu", "dissect", "7zz"),  # libyal: some compressed clusters read as zeros
    "qcow2-zstd": ("qemu", "dissect"),  # libyal, 7zz: refuse
    "qcow2-extended-l2": ("qemu",),  # dissect: takes all memory; libyal, 7zz: refuse
    "qcow2-data-file": ("qemu", "dissect"),  # libyal, 7zz: refuse
    "qcow2-backing": ("qemu", "libyal", "dissect"),  # 7zz: refuses
    "qcow2-backing-zero": ("qemu", "dissect"),  # libyal: the parent shows through zero clusters; 7zz: refuses
    # dissect: fails at the end of a volume that is no multiple of 8 KiB, of all kinds of VMDK.
    "vmdk": ("qemu", "libyal", "dissect", "7zz"),
    "vmdk-flat": ("qemu", "libyal", "dissect"),
    "vmdk-split": ("qemu", "libyal", "dissect"),
    "vmdk-stream": ("qemu", "libyal", "dissect", "7zz"),  # 7zz: refuses those that qemu writes
    "vmdk-backing": ("qemu", "libyal", "dissect"),  # 7zz: does not look for the parent
    "vmdk-sesparse": ("dissect",),
}
"""Families that read a kind of image right, by kind."""

BLOCK: Final = 64 << 10  # bytes: the grain of `digest`
_MEMORY: Final = 4 << 30  # bytes of address space that an oracle may take
_DEADLINE: Final = 120.0  # seconds that one question may take
_WORKER: Final = Path(__file__).with_name("oracle_worker.py")
_QEMU_FORMATS: Final = {"vhd": "vpc", "vhdx": "vhdx", "qcow2": "qcow2", "vmdk": "vmdk"}
_SEVENZIP_TYPES: Final = {"vhd": "VHD", "vhdx": "VHDX", "qcow2": "QCOW", "vmdk": "VMDK"}


@dataclasses.dataclass(frozen=True)
class Content:
    """What an oracle saw.

    Attributes:
        size: Bytes of the volume.
        digest: SHA-256 over its blocks of 64 KiB that are not all zero, ascending: eight bytes of
            offset, little-endian, then the block (the last may be short).
    """

    size: int
    digest: str


class OracleError(AssertionError):
    """An oracle refused an image, or died over it."""


def readers(kind: str) -> tuple[str, ...]:
    """The families that read this kind of image right."""
    return READS[kind]


def content(family: str, path: Path, kind: str, *, parents: Sequence[Path] = ()) -> Content:
    """All of an image, read by a family.

    Args:
        family: One of `readers`.
        path: The image.
        kind: A key of `READS`.
        parents: Images behind it, nearest first, for families that do not look for them.

    Raises:
        OracleError: it cannot read the image.
    """
    if family == "qemu":
        return _qemu_content(path, kind)
    if family == "7zz":
        return _sevenzip_content(path, kind)
    if family == "qemu-replay":
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            copy = Path(folder) / path.name
            run(["cp", "--sparse=always", str(path), str(copy)])
            run(
                [
                    require_program("qemu-img"),
                    "check",
                    "-r",
                    "all",
                    "-f",
                    _QEMU_FORMATS[_base(kind)],
                    str(copy),
                ]
            )
            return _qemu_content(copy, kind)
    answer = _ask(family, path, kind, parents, None)
    return Content(answer["size"], answer["digest"])


def spots(
    family: str, path: Path, kind: str, ranges: Sequence[tuple[int, int]], *, parents: Sequence[Path] = ()
) -> list[bytes]:
    """Some ranges of an image, each ``(offset, length)``; for images too large for `content`.

    Not by ``7zz``, which only unpacks whole images.

    Raises:
        OracleError: it cannot read the image.
    """
    if family == "qemu":
        return _qemu_spots(path, kind, ranges)
    return [bytes.fromhex(text) for text in _ask(family, path, kind, parents, list(ranges))["spots"]]


def complaints(path: Path, kind: str, *, huge: bool = False) -> list[str]:
    """What the checkers say against an image; empty if it is clean.

    ``qemu-img check`` for qcow2, vhdx and vmdk, and ``7zz t`` for the kinds that it reads; of ``huge``
    images, which 7zz would read as a whole, it only opens and lists (``7zz l``).
    """
    found = []
    base = _base(kind)
    # qemu-img has no check for VHD, and opens neither a VHDX child nor one of large sectors.
    if base != "vhd" and not kind.startswith(("vhdx-diff", "vhdx-4kn")):
        found += _verdict([require_program("qemu-img"), "check", "-f", _QEMU_FORMATS[base], str(path)])
    if "7zz" in READS[kind]:
        found += _verdict(
            [require_program("7zz"), "l" if huge else "t", f"-t{_SEVENZIP_TYPES[base]}", str(path)]
        )
    return found


def compare(one: Path, kind: str, other: Path, other_kind: str) -> None:
    """Hold two images against each other by ``qemu-img compare``; a kind may be ``raw``.

    Raises:
        OracleError: they differ, or one cannot be read.
    """
    formats = [_QEMU_FORMATS.get(_base(name), name) for name in (kind, other_kind)]
    command = [require_program("qemu-img"), "compare", "-f", formats[0], "-F", formats[1]]
    done = run([*command, one, other])
    if "Images are identical" not in done.stdout or done.stderr:
        raise OracleError(f"{one} and {other}: {done.stdout}{done.stderr}")


def block_map(path: Path, kind: str, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where a volume has data by ``qemu-img map``: ``(from, to)``, in some ranges ``(offset, length)``.

    QEMU's driver of VHDX has no map: it calls all of a disk data.
    """
    found = []
    for offset, length in ranges:
        where = [f"--start-offset={offset}", f"--max-length={length}"]
        command = [require_program("qemu-img"), "map", "--output=json", "-f", _QEMU_FORMATS[_base(kind)]]
        for entry in json.loads(run([*command, *where, path]).stdout):
            first, end = entry["start"], entry["start"] + entry["length"]
            if entry["data"] and not entry["zero"]:
                found.append((max(first, offset), min(end, offset + length)))
    return found


def digest_of(blocks: Iterable[tuple[int, bytes]]) -> str:
    """The digest of `Content` from ascending blocks of `BLOCK` bytes; zeros may be left out."""
    state = hashlib.sha256()
    for offset, block in blocks:
        if block.strip(b"\0"):
            state.update(offset.to_bytes(8, "little"))
            state.update(block)
    return state.hexdigest()


def content_of(data: bytes) -> Content:
    """What every oracle must see in a volume that holds ``data``."""
    return Content(len(data), digest_of((at, data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)))


def content_of_file(path: Path) -> Content:
    """The same for a raw file; its holes are not read."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        return Content(size, digest_of(_blocks_of_file(file, size)))


def _blocks_of_file(file: IO[bytes], size: int) -> Iterable[tuple[int, bytes]]:
    at = 0
    while at < size:
        try:
            data = os.lseek(file.fileno(), at, os.SEEK_DATA)
        except OSError:  # nothing but a hole up to the end
            return
        at = data - data % BLOCK
        file.seek(at)
        yield at, file.read(BLOCK)
        at += BLOCK


def _base(kind: str) -> str:
    return kind.partition("-")[0]


def _limited(command: Sequence[str | Path]) -> list[str]:
    return [require_program("prlimit"), f"--as={_MEMORY}", "--core=0", *map(str, command)]


def run(
    command: Sequence[str | Path], *, text: str | None = None, cwd: Path | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a program that is not ours, under the limits that hold for all of them.

    Args:
        command: Its path and its arguments.
        text: Its input.
        cwd: Where it runs.
        check: Whether a failure is an error.

    Raises:
        OracleError: it failed, or its time is over.
    """
    try:
        done = subprocess.run(
            _limited(command),
            cwd=cwd,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise OracleError(f"{command[0]} took more than {_DEADLINE:g} s") from exc
    if check and done.returncode:
        raise OracleError(
            f"{' '.join(map(str, command))}: exit {done.returncode}: {(done.stderr or done.stdout).strip()}"
        )
    return done


def _verdict(command: Sequence[str]) -> list[str]:
    try:
        done = run(command)
    except OracleError as exc:
        return [str(exc)]
    # 7zz says some things in words alone.
    bad = [line for line in done.stdout.splitlines() if re.search(r"warning|error|leak", line, re.IGNORECASE)]
    return [line for line in bad if "No errors were found" not in line]


def _qemu_content(path: Path, kind: str) -> Content:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        raw = Path(folder) / "content.raw"
        convert = [require_program("qemu-img"), "convert", "-f", _QEMU_FORMATS[_base(kind)], "-O", "raw"]
        run([*convert, str(path), str(raw)])
        return content_of_file(raw)


_DUMP: Final = re.compile(r"^(?:qemu-io> )*[0-9a-f]{8,}:  ((?:[0-9a-f]{2} )+)")


def _qemu_spots(path: Path, kind: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    script = "".join(f"read -v {offset} {length}\n" for offset, length in ranges)
    command = [require_program("qemu-io"), "-r", "-f", _QEMU_FORMATS[_base(kind)], str(path)]
    lines = run(command, text=script).stdout.splitlines()
    data = b"".join(bytes.fromhex(found[1]) for line in lines if (found := _DUMP.match(line)))
    if len(data) != sum(length for _, length in ranges):
        raise OracleError(f"qemu-io read {len(data)} bytes of {path}: {lines[-2:]}")
    pieces, at = [], 0
    for _, length in ranges:
        pieces.append(data[at : at + length])
        at += length
    return pieces


def _sevenzip_content(path: Path, kind: str) -> Content:
    command = [require_program("7zz"), "e", "-so", f"-t{_SEVENZIP_TYPES[_base(kind)]}", str(path)]
    size = 0
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            _limited(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
        ) as process,
    ):
        assert process.stdout is not None
        late = threading.Timer(_DEADLINE, process.kill)
        late.start()

        def blocks() -> Iterable[tuple[int, bytes]]:
            nonlocal size
            while block := process.stdout.read(BLOCK):  # type: ignore[union-attr]  # asserted above
                yield size, block
                size += len(block)

        try:
            digest = digest_of(blocks())
            code = process.wait()
        finally:
            late.cancel()
        said.seek(0)
        if code:
            raise OracleError(f"7zz: exit {code}: {said.read().decode(errors='replace').strip()}")
    return Content(size, digest)


def _ask(
    family: str, path: Path, kind: str, parents: Sequence[Path], ranges: list[tuple[int, int]] | None
) -> Any:  # noqa: ANN401 - JSON
    request = {
        "family": family,
        "path": str(path),
        "kind": kind,
        "parents": [str(parent) for parent in parents],
        "ranges": ranges,
    }
    command = [sys.executable, "-I", "-W", "ignore", str(_WORKER), json.dumps(request)]
    return json.loads(run(command).stdout)
