"""The stand-alone reader of docs/formats, run as its users run it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from checkout import TOP

PROGRAM = TOP / "docs" / "formats" / "vsnap_reader.py"
_STATES = ("zero", "hole", "excluded", "data")


def read_alone(file: Path, ancestors: Iterable[Path] = (), out: Path | None = None) -> dict[str, Any]:
    """What the reader says of an image; ``extents`` are its states with the unreadable ranges laid over."""
    target = ["-o", str(out)] if out is not None else []
    command = [sys.executable, "-I", str(PROGRAM), *target, str(file), *map(str, ancestors)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    result["extents"] = _extents(result["runs"], result["unreadable"], result["size"])
    return result


def _extents(runs: list[list[int]], unreadable: list[list[int]], size: int) -> list[list[object]]:
    edges = {offset for offset, _ in runs} | {size}
    edges |= {edge for offset, length in unreadable for edge in (offset, offset + length)}
    result: list[tuple[int, str]] = []
    for start in sorted(edges - {size}):
        kind = next(_STATES[code] for offset, code in reversed(runs) if offset <= start)
        if any(offset <= start < offset + length for offset, length in unreadable):
            kind = "unreadable"
        if not result or result[-1][1] != kind:
            result.append((start, kind))
    ends = [*(start for start, _ in result), size][1:]
    return [[start, end - start, kind] for (start, kind), end in zip(result, ends, strict=True)]
