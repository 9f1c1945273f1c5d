"""A module that cannot be imported."""

raise RuntimeError("this guest is broken")
