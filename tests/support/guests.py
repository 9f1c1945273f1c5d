"""Packages that add drivers: the guest distribution, and ones that nobody wants."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from checkout import SRC, TOP

GUEST = TOP / "tests" / "support" / "guest"


def install_guest(folder: Path) -> Path:
    """Build the wheel of ``vsssnap-guest`` and unpack it; the result is for ``sys.path``."""
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(GUEST),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    # A wheel of pure Python is installed by unpacking it (binary distribution format, "Installing a wheel").
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def declare(folder: Path, name: str, entry_points: str, *, version: str = "1.0") -> Path:
    """Make a distribution of nothing but a list of entry points; the result is for ``sys.path``."""
    information = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (information / "entry_points.txt").write_text(entry_points)
    return folder


def run(program: str, *sites: Path, **environment: str) -> str:
    """What a new Python prints that has ``sites`` on its path; it must succeed."""
    path = os.pathsep.join(map(str, (SRC, *sites)))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()
