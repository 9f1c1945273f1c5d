"""Arguments that only callers can get wrong, refused before anything is touched."""

from __future__ import annotations

import os

from vsssnap.errors import UsageError


def path_text(path: object) -> str:
    """A path as text, as the system will take it.

    Raises:
        UsageError: it is no path: of another type, empty, with a null byte, or with characters that
            no file name has here.
    """
    if not isinstance(path, str | bytes | os.PathLike):
        raise UsageError(f"{type(path).__name__} is no path", hint="pass a str, bytes or os.PathLike")
    try:
        text = os.fsdecode(path)
        os.fsencode(text)
    except (TypeError, ValueError) as exc:  # an odd __fspath__; a lone surrogate
        raise UsageError(f"{path!r} is no path: {exc}") from None
    if not text or "\0" in text:
        raise UsageError(f"{text!r} is no path", hint="name a file, a folder or a device")
    return text


def instance(value: object, kind: type, name: str, hint: str = "") -> None:
    """Refuse an argument of another type.

    Raises:
        UsageError: ``value`` is no ``kind``.
    """
    if not isinstance(value, kind):
        hint = hint or f"pass a {kind.__name__}"
        raise UsageError(f"{name} is {type(value).__name__}, no {kind.__name__}", hint=hint)
