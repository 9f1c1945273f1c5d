"""Images written by other programs, unpacked once and kept outside the checkout."""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import os
import tempfile
from pathlib import Path

import zstandard

from requirements import require_corpus

_STEP = 1 << 20
_ZEROS = bytes(_STEP)


@dataclasses.dataclass(frozen=True)
class Expected:
    """A line of ``EXPECTED.tsv``.

    Attributes:
        path: The image, relative to the corpus.
        format: ``vpc`` (VHD), ``vhdx``, ``qcow2``, ``vmdk``, ``raw``.
        parents: Images behind it, relative to the corpus.
        size: Bytes of the virtual disk.
        sha256: Of the whole virtual disk; "" where it was too large.
        digest: As `oracles.digest_of`.
    """

    path: str
    format: str
    parents: tuple[str, ...]
    size: int
    sha256: str
    digest: str


@functools.cache
def expected() -> dict[str, Expected]:
    """What each image of the corpus holds, by path."""
    with open(require_corpus() / "EXPECTED.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    found = {}
    for row in rows:
        parents = tuple(name.strip() for name in row["parents"].split(",") if name.strip())
        sha256 = row["sha256_full"].strip("-")
        found[row["path"]] = Expected(
            row["path"], row["fmt"], parents, int(row["virtual_size"]), sha256, row["nz64k_sha256"]
        )
    return found


@functools.cache
def _files() -> dict[str, tuple[int, str]]:
    with open(require_corpus() / "FILES.tsv", encoding="utf-8", newline="") as file:
        return {
            row["path"]: (int(row["bytes"]), row["sha256"]) for row in csv.DictReader(file, delimiter="\t")
        }


def image(name: str) -> Path:
    """A file of the corpus, unpacked with its holes; files of one folder lie in one folder.

    Args:
        name: Its path in ``FILES.tsv``, such as ``"dfvfs/ntfs-parent.vhdx"``.
    """
    size, sha256 = _files()[name]
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    target = Path(base) / "vsssnap" / "corpus" / name
    # The name is given last, so what stands under it is whole; the digest is part of the mark.
    mark = target.with_name(f".{target.name}.{sha256[:16]}")
    if mark.exists() and target.exists() and target.stat().st_size == size:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(require_corpus() / "files" / f"{name}.zst", "rb") as packed,
        tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file,
    ):
        state = hashlib.sha256()
        reader = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
        at = 0
        while piece := reader.read(_STEP):
            state.update(piece)
            if piece != _ZEROS[: len(piece)]:
                file.seek(at)
                file.write(piece)
            at += len(piece)
        file.truncate(at)
    assert (at, state.hexdigest()) == (size, sha256), f"{name} in the corpus is damaged"
    os.chmod(file.name, 0o444)
    os.replace(file.name, target)
    mark.touch()
    return target
