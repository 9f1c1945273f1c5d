"""The options of a format as the caller gave them."""

from __future__ import annotations

from typing import TypeVar

from vsssnap.errors import UsageError

OptionsT = TypeVar("OptionsT")


def options_of(kind: type[OptionsT], options: object, name: str) -> OptionsT:
    """``options`` as the type a format takes, its defaults for None.

    Raises:
        UsageError: they are another format's.
    """
    if options is None:
        return kind()
    if not isinstance(options, kind):
        raise UsageError(
            f"{type(options).__name__} is no options of {name!r}",
            hint=f"pass {kind.__name__} of {kind.__module__.removesuffix('.options')}",
        )
    return options
