"""Where a contender's time goes: what the report says of a goal that was missed.

``perf record`` samples all threads of a process, in the kernel too; samples are counted by what was at
work, and what is missing to all processors for all of the time is time in which a processor waited.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measure import Contender, prepared

RATE = 1999  # samples a second of a processor
IDLE = "waiting"
_LIBRARIES = (
    ("zstd", ("backend_c.", "libzstd")),
    ("digests", ("blake3.", "_xxhash.", "_hashlib.", "libcrypto")),
    ("Python", ("libpython", "python3", "_struct.", "zlib.", "_bisect.", "array.")),
)
_COPIES = (
    "copy_to_iter",
    "copy_from_iter",
    "copy_folio",
    "copy_user",
    "rep_movs",
    "copy_mc",
    "memcpy",
    "memmove",
)
KINDS = ("zstd", "digests", "Python", "copies of bytes", "kernel", "other", IDLE)


@dataclasses.dataclass(frozen=True)
class Profile:
    """What one run did.

    Attributes:
        name: The contender's.
        wall: Seconds.
        seconds: Processor seconds of each of `KINDS`.
    """

    name: str
    wall: float
    seconds: Mapping[str, float]


def why() -> str:
    """Why there can be no profile here; empty if there can."""
    if shutil.which("perf") is None:
        return "perf is not installed"
    done = subprocess.run(
        ["perf", "record", "-o", os.devnull, "true"], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else f"perf does not record: {done.stderr.strip()[-200:]}"


def profile(contender: Contender) -> Profile:
    """Run a contender once more, with samples taken."""
    command = prepared(contender)
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "perf.data")
        recorder = ["perf", "record", "-q", "-F", str(RATE), "-o", data, "--"]
        subprocess.run([*recorder, *command], check=True, stdout=subprocess.DEVNULL)
        text = _said("report", data, "--stdio", "-q", "-n", "--sort", "dso,symbol", "-t", "\t")
        # From the first sample to the last: perf itself takes a second to end.
        times = [float(line.strip().rstrip(":")) for line in _said("script", data, "-F", "time").splitlines()]
    wall = max(times) - min(times)
    return Profile(contender.name, wall, sorted_out(text, wall, len(os.sched_getaffinity(0))))


def _said(command: str, data: str, *options: str) -> str:
    done = subprocess.run(
        ["perf", command, "-i", data, *options], check=True, capture_output=True, text=True, errors="replace"
    )
    return done.stdout


def sorted_out(text: str, wall: float, processors: int) -> dict[str, float]:
    """Processor seconds of each of `KINDS` from what ``perf report`` printed, tab-separated."""
    found = dict.fromkeys(KINDS, 0.0)
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) >= 4 and fields[1].isdigit():
            found[_kind(fields[2], fields[3])] += int(fields[1]) / RATE
    found[IDLE] = max(0.0, wall * processors - sum(found.values()))
    return found


def _kind(library: str, symbol: str) -> str:
    if any(name in symbol for name in _COPIES):
        return "copies of bytes"
    if library.startswith("[k") or "kernel" in library:
        return "kernel"
    for kind, beginnings in _LIBRARIES:
        if library.startswith(beginnings):
            return kind
    return "other"


def described(profiles: Sequence[Profile]) -> list[str]:
    """A table of one or two profiles, and of two what makes the difference; Markdown."""
    names = [f"{one.name} ({one.wall:.2f} s)" for one in profiles]
    lines = [f"| processor seconds | {' | '.join(names)} |", "|---|" + "---|" * len(profiles)]
    for kind in KINDS:
        values = [one.seconds[kind] for one in profiles]
        if max(values) >= 0.005:
            lines.append(f"| {kind} | {' | '.join(f'{value:.2f}' for value in values)} |")
    if len(profiles) == 2:
        ours, limit = profiles
        more = {kind: ours.seconds[kind] - limit.seconds[kind] for kind in KINDS}
        most = sorted((kind for kind in KINDS if more[kind] > 0.01), key=lambda kind: -more[kind])[:4]
        parts = ", ".join(f"{kind} {more[kind]:.2f}" for kind in most)
        lines += ["", f"Beyond the bound, in processor seconds: {parts or 'nothing'}."]
    return lines
