"""``vsssnap demo``: a torn image and a good one, side by side."""

from __future__ import annotations

from vsssnap.cli.demo.command import demo as demo
