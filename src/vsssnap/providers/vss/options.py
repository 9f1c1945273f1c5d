"""What can be asked of VSS beyond the volumes."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from vsssnap._win32.guids import GUID_NULL, SYSTEM_PROVIDER
from vsssnap.errors import UsageError


class ComSecurity(enum.Enum):
    """Who sets the COM security of this process, which is set once in its life."""

    AUTO = "auto"
    """Set it if nobody has, so that writers can call back; go on if it cannot be set."""
    NEVER = "never"
    """Leave it to the host program.  Writers that cannot call back leave event 8194 in the log."""
    REQUIRE = "require"
    """Fail if it is neither set nor can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VssOptions:
    r"""Options of the provider ``vss``; passing them to `Snapshot` chooses it.

    Attributes:
        writers: Whether applications take part.  Without them it is quicker, and at most FILESYSTEM.
        exclude_writers: Names or class ids of writers that shall not.
        auto_recovery: Whether applications may finish the shadow copy by writing into it once.
            False keeps it as it was at the instant, to the byte.
        vss_provider: Id of the VSS provider; None for the one that Windows chooses, ``"system"`` for
            Windows' own.
        com_security: Who sets the COM security of this process.
        allow_unelevated: Try without an administrator's token: the account is listed under
            ``HKLM\\SYSTEM\\CurrentControlSet\\Services\\VSS\\VssAccessControl``.
    """

    writers: bool = True
    exclude_writers: Sequence[str | UUID] = ()
    auto_recovery: bool = True
    vss_provider: UUID | str | None = None
    com_security: ComSecurity = ComSecurity.AUTO
    allow_unelevated: bool = False

    def __post_init__(self) -> None:
        self.provider_id()
        if not isinstance(self.exclude_writers, tuple | list):
            raise UsageError("exclude_writers is no tuple", hint="pass a tuple of names or ids")

    def provider_id(self) -> UUID:
        """The id that VSS calls take.

        Raises:
            UsageError: ``vss_provider`` is neither an id nor ``"system"``.
        """
        if self.vss_provider is None:
            return GUID_NULL
        if isinstance(self.vss_provider, UUID):
            return self.vss_provider
        if self.vss_provider == "system":
            return SYSTEM_PROVIDER
        try:
            return UUID(self.vss_provider)
        except (ValueError, AttributeError, TypeError):
            raise UsageError(
                f"vss_provider is {self.vss_provider!r}", hint='pass an id, or "system"'
            ) from None
