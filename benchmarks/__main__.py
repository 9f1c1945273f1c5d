"""Run the scenes: ``python -m benchmarks [--quick] [scene ...]``."""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.data import GIB, Volumes
from benchmarks.measure import BenchmarkError, rounds
from benchmarks.report import Report
from benchmarks.scene import Context, Scene, timed_inside

MODULES = ("small", "save", "plain", "back", "increment", "shadow")
PACKAGES = (
    "qemu-utils",
    "zstd",
    "ntfs-3g",
    "e2fsprogs",
    "partclone",
    "borgbackup",
    "restic",
    "casync",
    "rdiff",
    "libvshadow-utils",
    "linux-perf",
)
LIBRARIES = (
    "matplotlib",
    "dissect.hypervisor",
    "backports.zstd",
    "libvhdi-python",
    "libqcow-python",
    "libvshadow-python",
)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenes", nargs="*", help="names, or beginnings of names; all by default")
    parser.add_argument("--quick", action="store_true", help="volumes of 1 GiB, three rounds, fewer peers")
    parser.add_argument("--size", type=int, help="GiB of a volume; 4 by default")
    parser.add_argument("--rounds", type=int, help="rounds of each scene; 5 by default")
    parser.add_argument("--folder", type=Path, default=_default_folder(), help="where volumes are kept")
    parser.add_argument("--report", type=Path, default=Path("benchmark-report"), help="folder of the report")
    parser.add_argument("--install", action="store_true", help="install the peers (as root), then run")
    parser.add_argument("--list", action="store_true", help="list the scenes and end")
    arguments = parser.parse_args()
    source = str(Path(__file__).resolve().parent.parent / "src")
    sys.path.insert(0, source)
    if arguments.install:
        install()
    if arguments.list:
        print("\n".join(_known()))
        return 0
    size = (arguments.size or (1 if arguments.quick else 4)) * GIB
    count = arguments.rounds or (3 if arguments.quick else 5)
    work = arguments.folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    # Compiled modules are kept, as they are where the library is installed; not in the checkout.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(arguments.folder / "pycache")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    context = Context(Volumes(arguments.folder, size), work, arguments.quick)
    report = Report()
    path: Path | None = None
    try:
        for scene in _chosen(context, arguments.scenes):
            print(f"{scene.name}: {scene.title}", flush=True)
            report.add(scene, timed_inside(rounds(scene.contenders, count)))
            # After each: a run that is broken off keeps what it measured.
            path = report.write(arguments.report, context.volumes.describe(), count)
    except BenchmarkError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"wrote {path}" if path is not None else "no scene has such a name; --list shows them")
    return 0


def _default_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "vsssnap" / "benchmarks"


def _known() -> dict[str, Callable[[Context], Scene]]:
    found: dict[str, Callable[[Context], Scene]] = {}
    for module in MODULES:
        found |= importlib.import_module(f"benchmarks.scenes.{module}").SCENES
    return found


def _chosen(context: Context, names: list[str]) -> Iterator[Scene]:
    for name, make in _known().items():
        if not names or any(name.startswith(wanted) for wanted in names):
            yield make(context)


def install() -> None:
    """Install the peers and the libraries of the report."""
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *LIBRARIES], check=True)
    if shutil.which("apt-get") and os.geteuid() == 0:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(
            ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update"], env=environment, check=True
        )
        command = [
            "apt-get",
            "-q",
            "-y",
            "-o",
            "DPkg::Lock::Timeout=300",
            "install",
            "--no-install-recommends",
            *PACKAGES,
        ]
        subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    sys.exit(main())
