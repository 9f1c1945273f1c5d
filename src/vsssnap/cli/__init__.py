"""The command line ``vsssnap`` (floor 8): a thin layer over the public calls."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line with the arguments of this process, and exit."""
    # A program may be started with its output closed (>&-).  Python has nothing there then, and the
    # first file that is opened takes the place: this one.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for good
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for good
    if find_spec("click") is None or find_spec("rich") is None:
        print('The command line needs two more packages: pip install "vsssnap[cli]"', file=sys.stderr)  # noqa: T201 - nothing nicer is installed
        raise SystemExit(2)
    try:
        from vsssnap.cli.app import run
    except KeyboardInterrupt:  # before `interrupts` is there to take it
        print("vsssnap: interrupted", file=sys.stderr)  # noqa: T201 - as above
        raise SystemExit(130) from None

    run()
