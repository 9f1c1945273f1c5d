"""Finding the image behind another: by what it is, never by its name alone."""

from __future__ import annotations

import ntpath
import os
from typing import TYPE_CHECKING, TypeVar

from vsssnap.errors import ImageError, ImageNotFoundError, ParentMismatchError
from vsssnap.formats.base import ImageReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vsssnap.formats.base import ResolveParent

HINT = (
    "put the parent back as it was when this image was made, or name it with parent=;"
    " it must not be written since"
)
"""The remedy for a parent that is another image."""

ReaderT = TypeVar("ReaderT", bound=ImageReader)


def find_parent(
    resolve: ResolveParent | None,
    candidates: Sequence[str],
    kind: type[ReaderT],
    problem: Callable[[ReaderT], str],
    child: str,
    wanted: str,
) -> ReaderT:
    """Open the first of some files that is the parent.

    Args:
        resolve: Opens a file by its path.
        candidates: Paths; relative ones begin at the child's folder.
        kind: The reader that a parent has.
        problem: Why an image is not the one that the child was made against, or "".
        child: The child's path, for messages.
        wanted: What the parent is, for messages.

    Raises:
        ImageNotFoundError: there is no file under any of the names.
        ParentMismatchError: those that are there are other images, or there is no name.
    """
    if resolve is None:
        raise ParentMismatchError(
            f"{child} was made against {wanted}, and there is no way to open it",
            path=child,
            hint="open the image by its path",
        )
    for found in named_parents(resolve, kind.format):
        if isinstance(found, kind) and not problem(found):
            return found
        found.close()
    other = what = ""
    for candidate in candidates:
        try:
            found = resolve([candidate], format=kind.format)
        except ImageNotFoundError:
            continue
        reason = problem(found) if isinstance(found, kind) else f"it is a {found.format} image"
        if isinstance(found, kind) and not reason:
            return found
        other, what = other or found.path or candidate, what or reason
        found.close()
    if candidates and not other:
        resolve(candidates, format=kind.format).close()  # raises, and names all that was tried
    raise ParentMismatchError(
        f"{child} was made against {wanted}"
        + (f", which {other} is not: {what}" if other else " and does not say where that is"),
        path=other or child,
        hint=HINT,
    )


def named_parents(resolve: ResolveParent, format: str | None = None) -> Iterator[ImageReader]:
    """The files that the user says are parents, opened; the caller closes what is none.

    Args:
        resolve: Opens a file by its path.
        format: What the parent is; None to recognise it.
    """
    for path in getattr(resolve, "named", ()):
        try:
            found = resolve([path], format=format)
        except ImageError:
            continue  # it is another's parent, or none: the search by the recorded name says what is missing
        yield found


def spellings(*paths: str) -> list[str]:
    """Paths that another system wrote, in the spellings that may be meant here, each once, in order.

    Where paths have slashes, backslashes become such, and a path with a drive means nothing; so the
    bare names come last: the file may lie beside the child.  A dot that stands for the child's folder
    is left out: along a chain the dots would add up.
    """
    found: list[str] = []
    for path in filter(None, paths):
        if os.sep != "\\" and not ntpath.splitdrive(path)[0]:
            found.append(path.replace("\\", os.sep).removeprefix(f".{os.sep}"))
        found.append(path.removeprefix(f".{os.sep}"))
    found += [bare for path in paths if (bare := ntpath.basename(path))]
    return list(dict.fromkeys(found))
