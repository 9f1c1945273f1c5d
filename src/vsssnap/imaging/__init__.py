"""Open, create, save, copy, verify, restore and compare (floor 6)."""
