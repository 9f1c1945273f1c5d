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
