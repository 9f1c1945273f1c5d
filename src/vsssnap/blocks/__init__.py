"""Readers of blocks and what is built from them alone (floor 3)."""
