"""Give an image and its side-car their names, so that no image ever stands beside the checksums of another.

Two renames are not one step.  What may be seen between them, also after a power cut, is an image without
its side-car, never a wrong pair.  What fails or is interrupted before the new image has its name leaves
the old pair as it was.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from vsssnap.errors import TargetError
from vsssnap.formats.base import SIDECAR_SUFFIX
from vsssnap.imaging.files import failed, remove

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vsssnap.imaging.partial import PartialFile

_log = logging.getLogger("vsssnap.imaging")

ASIDE = ".replaced"
"""What is appended to the name of a side-car that waits until its image is replaced."""


def commit(image: PartialFile, sidecars: Sequence[PartialFile], *, replace: bool) -> None:
    """Rename an image and the side-car it may have.

    Args:
        image: The image; it was flushed.
        sidecars: Its side-car, or nothing.
        replace: Whether an image that is there goes, and its side-car with it.

    Raises:
        TargetError: a rename failed.
        TargetRefusedError: the name came into being meanwhile and ``replace`` was not given.
    """
    if replace:
        _replace(image, sidecars)
        return
    try:
        for sidecar in sidecars:
            sidecar.commit()
        image.commit()
    except BaseException:
        for sidecar in sidecars:
            if sidecar.placed:
                remove(sidecar.path)
        raise


def _replace(image: PartialFile, sidecars: Sequence[PartialFile]) -> None:
    beside = image.path + SIDECAR_SUFFIX
    aside = beside + ASIDE
    remove(aside)  # a killed replace left it; from here on it is that of the image which is there now
    try:
        _move_aside(beside, aside)
        image.commit()
    except BaseException as exc:
        # Asked of the disk: Ctrl-C may have come right after either rename.
        if image.placed:
            _drop(aside)
        elif os.path.lexists(aside):
            try:
                os.replace(aside, beside)
            except OSError as worse:
                exc.add_note(f"the side-car {beside} is {aside} now, and cannot be renamed: {worse.strerror}")
        raise
    try:
        for sidecar in sidecars:
            sidecar.commit()
    finally:
        _drop(aside)


def _move_aside(path: str, aside: str) -> None:
    try:
        os.replace(path, aside)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise failed(path, "rename", exc, "cannot be moved aside") from exc


def _drop(aside: str) -> None:
    """Remove an old side-car: no reason to say of an image that is there that it failed."""
    try:
        remove(aside)
    except TargetError as exc:
        _log.warning("%s", exc)
