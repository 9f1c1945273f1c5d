"""The version, where every floor can say it."""

__version__ = "0.1.0.dev0"
