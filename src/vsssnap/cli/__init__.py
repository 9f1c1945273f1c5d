"""The command line ``vsssnap`` (floor 8): a thin layer over the public calls."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line with the arguments of this process, and exit."""
    if find_spec("click") is None or find_spec("rich") is None:
        print('The command line needs two more packages: pip install "vsssnap[cli]"', file=sys.stderr)  # noqa: T201 - nothing nicer is installed
        raise SystemExit(2)
    try:
        from vsssnap.cli.app import run
    except KeyboardInterrupt:  # before `interrupts` is there to take it
        print("vsssnap: interrupted", file=sys.stderr)  # noqa: T201 - as above
        raise SystemExit(130) from None

    run()
