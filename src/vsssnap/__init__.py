"""Consistent block-level images of live volumes: snapshot, read, store, verify, restore."""

from __future__ import annotations

__version__ = "0.1.0.dev0"
