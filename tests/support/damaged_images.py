"""Images with damaged structures: right bytes or ImageError, in bounded time and memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WORKER = Path(__file__).with_name("damage_worker.py")
_BATCH = 5000  # changes that one process looks at


@dataclass(frozen=True)
class Change:
    """One way to damage an image.

    Attributes:
        what: For messages.
        patches: Bytes that are put over the image's, by offset.
        length: Bytes that are left of the image; None for all.
        silent: Whether the format has nothing by which this could be noticed.
    """

    what: str
    patches: tuple[tuple[int, bytes], ...] = ()
    length: int | None = None
    silent: bool = False

    def request(self) -> dict[str, Any]:
        """As the worker takes it."""
        return {
            "what": self.what,
            "patches": [(at, data.hex()) for at, data in self.patches],
            "length": self.length,
            "silent": self.silent,
        }


def flips(
    image: bytes, first: int, end: int, *, every: bool = False, silent: bool = False, step: int = 1
) -> Iterator[Change]:
    """Bits of a range turned over: one of each byte by chance, or all of them."""
    dice = random.Random(first)
    for at in range(first, end, step):
        for bit in range(8) if every else [dice.randrange(8)]:
            yield Change(f"bit {bit} of byte {at}", ((at, bytes([image[at] ^ 1 << bit])),), silent=silent)


def cuts(size: int, count: int, *, silent: bool = False) -> Iterator[Change]:
    """The image cut short, at its edges and by chance."""
    dice = random.Random(size)
    lengths = {0, 1, 511, 512, 1024, 1536, size - 1, size - 511, size - 512, size - 513, size // 2}
    lengths |= {dice.randrange(size) for _ in range(count)}
    for length in sorted(n for n in lengths if 0 <= n < size):
        yield Change(f"cut to {length} of {size} bytes", length=length, silent=silent)


def problems(
    format: str,
    files: Mapping[str, bytes],
    image: str,
    wanted: bytes,
    changes: Iterable[Change],
    *,
    target: str | None = None,
) -> list[str]:
    """What is wrong with how damaged images are taken; empty if nothing is.

    Args:
        format: Name of the format.
        files: The image and those it refers to, by name.
        image: The one that is opened.
        wanted: What it holds undamaged.
        changes: How it is damaged, one at a time.
        target: The file that is damaged; by default the image.
    """
    found: list[str] = []
    todo = list(changes)
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        (Path(folder) / "wanted content").write_bytes(wanted)
        for start in range(0, len(todo), _BATCH):
            request = {
                "format": format,
                "folder": folder,
                "image": image,
                "target": target or image,
                "wanted": "wanted content",
                "changes": [change.request() for change in todo[start : start + _BATCH]],
            }
            command = [sys.executable, str(_WORKER)]
            done = subprocess.run(
                command, input=json.dumps(request), capture_output=True, text=True, timeout=900, check=False
            )
            if done.returncode:
                found.append(f"exit {done.returncode} in changes from {start}: {done.stderr[-2000:]}")
                continue
            found += json.loads(done.stdout)
    return found
