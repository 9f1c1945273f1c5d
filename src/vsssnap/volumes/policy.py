"""What a view of a volume leaves out."""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["DEFAULT_EXCLUSIONS", "Exclusion", "UnusedPolicy"]


class UnusedPolicy(enum.StrEnum):
    """What becomes of blocks that no file uses."""

    ZERO = "zero"
    """They are HOLE: nobody reads them, and they read as zeros."""
    READ = "read"
    """They are DATA, as the system gives them; under VSS that is not what they held at the instant."""


class Exclusion(enum.StrEnum):
    """Files that Windows makes anew, so that an image need not hold what is in them."""

    PAGE_FILE = "page-file"
    r"""``\pagefile.sys``."""
    SWAP_FILE = "swap-file"
    r"""``\swapfile.sys``, the page file of store applications."""
    HIBERNATION = "hibernation"
    r"""``\hiberfil.sys``; kept all the same while it holds a hibernated system."""
    SHADOW_STORAGE = "shadow-storage"
    r"""The copy-on-write area of shadow copies, in ``\System Volume Information``."""
    NOT_IN_SNAPSHOT = "not-in-snapshot"
    """What the registry of Windows lists under FilesNotToSnapshot; only of a snapshot by ``vss``."""


DEFAULT_EXCLUSIONS: Final = tuple(Exclusion)
"""All of them."""
