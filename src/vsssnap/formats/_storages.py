"""What every driver does with the storage that it is given."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from vsssnap.errors import ImageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.formats.storage import Storage


@contextmanager
def owning(storage: Storage) -> Iterator[None]:
    """Close a storage if the block fails, and give an error about an image its path."""
    try:
        yield
    except BaseException as exc:
        storage.close()
        if isinstance(exc, ImageError):
            exc.path = exc.path or storage.name
        raise


def require_empty(storage: Storage, *, seekable: str = "") -> None:
    """Refuse a storage that an image cannot be begun in.

    Args:
        storage: The one that was given.
        seekable: Why it must not be a pipe; "" if it may be one.

    Raises:
        UsageError: it is a pipe and must not, or has content.
    """
    if seekable and not storage.seekable:
        raise UsageError(
            f"{storage.name} cannot seek, {seekable}",
            hint="save to a file, or choose a format that streams, such as vsnap",
        )
    if storage.size:
        raise UsageError(f"{storage.name} is not empty: it has {storage.size} bytes")
