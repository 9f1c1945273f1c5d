"""The scenes; every module has ``SCENES``, functions that make them by name."""
