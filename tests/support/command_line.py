"""The program as a user runs it."""

from __future__ import annotations

import subprocess
import sys


def vsssnap(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command, which must end with ``status``, and with words instead of a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "vsssnap", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def said(*arguments: object, status: int = 0) -> str:
    """Run a command as `vsssnap` does; all that it printed."""
    done = vsssnap(*arguments, status=status)
    return done.stdout + done.stderr
