"""Damaged images in a process of their own: right bytes or an error of the library, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import qcow2_damage
from checkout import TOP
from requirements import require_program


def attack(seed: int, count: int, images: str = "", seconds: float = 250) -> int:
    """How many images were tried."""
    worker = Path(qcow2_damage.__file__)
    done = subprocess.run(
        [sys.executable, str(worker), str(seed), str(count), images],
        env={"PYTHONPATH": f"{TOP / 'src'}:{worker.parent}"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


@pytest.mark.posix("a memory limit is set with setrlimit")
def test_damaged_images_do_no_harm() -> None:
    assert attack(1, 40) > 2500


@pytest.mark.long
def test_damaged_images_of_qemu_do_no_harm(tmp_path: Path) -> None:
    made = []
    recipes = {
        "snapshots": ["cluster_size=4k", "write 0 60k", "snapshot", "write 30k 60k"],
        "subclusters": ["cluster_size=16k,extended_l2=on", "write 0 60k", "write -z 3k 8k"],
        "narrow": ["cluster_size=512,refcount_bits=1", "write 0 60k"],
    }
    qemu_img, qemu_io = require_program("qemu-img"), require_program("qemu-io")
    for name, (options, *steps) in recipes.items():
        path = str(tmp_path / name)
        subprocess.run([qemu_img, "create", "-q", "-f", "qcow2", "-o", options, path, "200k"], check=True)
        for step in steps:
            if step == "snapshot":
                subprocess.run([qemu_img, "snapshot", "-c", "one", path], check=True)
                subprocess.run([qemu_img, "bitmap", "--add", "-g", "4k", path, "bitmap"], check=True)
            else:
                subprocess.run([qemu_io, "-c", step, path], check=True, stdout=subprocess.DEVNULL)
        made.append(path)
    for seed in range(3):
        assert attack(seed, 1000, ",".join(made), seconds=280) > 10000
