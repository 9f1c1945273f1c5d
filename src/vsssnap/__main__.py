"""``python -m vsssnap`` is ``vsssnap``."""

from __future__ import annotations

from vsssnap.cli import main

if __name__ == "__main__":
    main()
