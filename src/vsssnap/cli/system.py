"""Programs, file systems and capabilities: what both the doctor and the demo ask for."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from pathlib import Path

_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # Debian keeps them out of ordinary users' PATH

# <linux/capability.h>
CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_LEASE = 2, 21, 28


def find_program(name: str) -> str | None:
    """The full path of a system program, also outside of an ordinary user's PATH."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN]))


def file_system_known(name: str) -> bool:
    """Whether the kernel has a file system, built in or as a module on disk."""
    with contextlib.suppress(OSError):
        if any(line.split()[-1:] == [name] for line in Path("/proc/filesystems").read_text().splitlines()):
            return True
    modules = Path("/lib/modules") / platform.release() / "kernel" / "fs" / name
    return any(modules.glob("*.ko*"))


def has_capability(number: int) -> bool:
    """Whether this process has a capability in effect; proc(5), CapEff in /proc/[pid]/status."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> number & 1)
    return False


def may_administer() -> bool:
    """CAP_SYS_ADMIN: mounting, freezing, loop devices."""
    return has_capability(CAP_SYS_ADMIN)
