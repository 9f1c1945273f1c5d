"""Finding the image behind another: by what it is, never by its name alone."""

from __future__ import annotations

import ntpath
import os
from typing import TYPE_CHECKING, TypeVar

from vsssnap.errors import ImageNotFoundError, ParentMismatchError, UnsupportedFeatureError
from vsssnap.formats.base import ImageReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vsssnap.formats.base import ResolveParent

ReaderT = TypeVar("ReaderT", bound=ImageReader)


def find_parent(
    resolve: ResolveParent | None,
    candidates: Iterable[str],
    kind: type[ReaderT],
    matches: Callable[[ReaderT], bool],
    child: str,
    wanted: str,
) -> ReaderT:
    """Open the first of some files that is the parent.

    Args:
        resolve: Opens a file by its path.
        candidates: Paths; relative ones begin at the child's folder.
        kind: The reader that a parent has.
        matches: Whether an image is the one that the child was made against.
        child: The child's path, for messages.
        wanted: What the parent is, for messages.

    Raises:
        ImageNotFoundError: there is no file under any of the names.
        ParentMismatchError: those that are there are other images, or there is no name.
        UnsupportedFeatureError: the chain is longer than the stack allows.
    """
    if resolve is None:
        raise ParentMismatchError(
            f"{child} was made against {wanted}, and there is no way to open it",
            path=child,
            hint="open the image by its path",
        )
    missing: ImageNotFoundError | None = None
    other = ""
    for candidate in candidates:
        try:
            found = resolve([candidate], format=kind.format)
        except ImageNotFoundError as exc:
            missing = missing or exc
            continue
        except RecursionError:
            raise UnsupportedFeatureError(
                f"{child}: too many parents behind one another",
                path=child,
                feature="long chain",
                hint="merge some of them",
            ) from None
        if isinstance(found, kind) and matches(found):
            return found
        other = other or found.path or candidate
        found.close()
    if missing is not None and not other:
        raise missing
    raise ParentMismatchError(
        f"{child} was made against {wanted}"
        + (f", which {other} is not" if other else " and does not say where that is"),
        path=other or child,
        hint="put the image back that this one was made against",
    )


def spellings(*paths: str) -> list[str]:
    """Paths that another system wrote, in the spellings that may be meant here, each once, in order.

    Where paths have slashes, backslashes become such, and a path with a drive means nothing; so the
    bare names come last: the file may lie beside the child.
    """
    found: list[str] = []
    for path in filter(None, paths):
        if os.sep != "\\" and not ntpath.splitdrive(path)[0]:
            found.append(path.replace("\\", os.sep))
        found.append(path)
    found += [bare for path in paths if (bare := ntpath.basename(path))]
    return list(dict.fromkeys(found))
