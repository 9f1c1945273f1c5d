"""The benchmarks are no test, but they must start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from checkout import TOP


def test_every_scene_can_be_listed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks", "--list", "--folder", str(tmp_path)],
        cwd=TOP,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert {"save-ntfs", "save-ext4", "verify", "restore", "random-reads"} <= set(names)
    assert len(names) == len(set(names))


REPORTED = """\
    39.72%\t1999\tbackend_c.cpython-311-x86_64-linux-gnu.so\t[.] ZSTD_compressBlock_fast
    13.18%\t400\t[kernel.kallsyms]\t[k] copy_folio_from_iter_atomic
     4.82%\t200\tblake3.cpython-311-x86_64-linux-gnu.so\t[.] _blake3_hash_many_avx512
     2.81%\t300\tlibpython3.11.so.1.0\t[.] _PyEval_EvalFrameDefault
     1.00%\t100\tlibc.so.6\t[.] __memmove_avx512_unaligned_erms
     1.00%\t100\tlibc.so.6\t[.] malloc
     0.77%\t50\t[kernel.kallsyms]\t[k] _raw_spin_unlock_irqrestore
"""


def test_samples_are_sorted_by_what_was_at_work() -> None:
    sys.path.insert(0, str(TOP))
    try:
        from benchmarks.profiles import RATE, Profile, described, sorted_out
    finally:
        sys.path.remove(str(TOP))
    found = sorted_out(REPORTED, 1.0, 2)
    counts = {kind: round(seconds * RATE) for kind, seconds in found.items()}
    assert counts.pop("waiting") == 2 * RATE - 3149
    assert counts == {
        "zstd": 1999, "digests": 200, "Python": 300, "copies of bytes": 500, "kernel": 50, "other": 100,
    }  # fmt: skip
    bound = Profile("bound", 0.8, dict.fromkeys(found, 0.0) | {"zstd": 1.0})
    lines = described([Profile("vsnap", 1.0, found), bound])
    assert lines[0] == "| processor seconds | vsnap (1.00 s) | bound (0.80 s) |"
    assert "| zstd | 1.00 | 1.00 |" in lines
    assert lines[-1].startswith(
        "Beyond the bound, in processor seconds: waiting 0.42, copies of bytes 0.25, "
    )
