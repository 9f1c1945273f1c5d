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


def sfdisk_table(disk: Path | str) -> dict[str, Any]:
    """The table as sfdisk reads it."""
    done = subprocess.run(
        [require_program("sfdisk"), "--json", str(disk)], capture_output=True, text=True, check=True
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
