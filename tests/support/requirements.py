"""What a test needs from the machine: ask here, never with `pytest.skip`.

A missing requirement skips the test on a developer's machine.  Where everything is known
to be installed, ``VSSSNAP_REQUIRE_LABS=1`` turns it into a failure, so that a lab cannot
silently stop being run.
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from checkout import corpus

# Debian keeps mkfs and losetup out of the PATH of ordinary users, PostgreSQL's out of everybody's.
_MORE_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def labs_required() -> bool:
    """Whether a missing requirement is a failure (``VSSSNAP_REQUIRE_LABS=1``)."""
    return os.environ.get("VSSSNAP_REQUIRE_LABS", "") not in ("", "0")


def unavailable(reason: str) -> NoReturn:
    """Skip the running test, or fail it where labs are required.

    Args:
        reason: What is missing and how to get it, as a sentence.
    """
    __tracebackhide__ = True
    if labs_required():
        pytest.fail(f"{reason} (VSSSNAP_REQUIRE_LABS is set, so this is a failure)", pytrace=False)
    pytest.skip(reason)


def find_program(name: str) -> str | None:
    """The full path of a program, also of those of PostgreSQL's newest version; None if absent."""
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    folders = [os.environ.get("PATH", os.defpath), *_MORE_PATHS, *map(str, newest)]
    return shutil.which(name, path=os.pathsep.join(folders))


def _version(folder: Path) -> int:
    number = folder.parent.name
    return int(number) if number.isdecimal() else 0


def require_program(name: str) -> str:
    """The full path of a program; the test is `unavailable` without it."""
    __tracebackhide__ = True
    path = find_program(name)
    if path is None:
        unavailable(f"the program {name} is not installed: run .ci/test as root, or see .ci/packages.txt")
    return path


def require_lab(*programs: str, root: bool = True, file_systems: tuple[str, ...] = ()) -> None:
    """Go on only where a lab can run: rights, programs and file systems are there.

    Args:
        programs: Names looked up as `find_program` does.
        root: Whether the lab needs to be root.
        file_systems: Names the kernel must know (``"xfs"``), built in or as a module.
    """
    __tracebackhide__ = True
    if root and (not hasattr(os, "geteuid") or os.geteuid() != 0):
        unavailable("not root: loop devices, mounts and freezing need it")
    for name in programs:
        require_program(name)
    for name in file_systems:
        if not _kernel_has(name):
            unavailable(f"this kernel has no file system {name}: its module is neither loaded nor installed")


def _kernel_has(file_system: str) -> bool:
    known = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines() if line.split()}
    if file_system in known:
        return True
    modules = Path("/lib/modules") / platform.release()
    return any((modules / "kernel" / "fs" / file_system).glob("*.ko*"))


def require_corpus() -> Path:
    """The folder of foreign images; the test is `unavailable` without it."""
    __tracebackhide__ = True
    folder = corpus()
    if folder is None:
        unavailable("the corpus of foreign images is not here: name its folder in VSSSNAP_CORPUS")
    return folder
