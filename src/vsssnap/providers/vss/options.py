"""What can be asked of VSS beyond the volumes."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import cast
from uuid import UUID

from vsssnap._win32.guids import GUID_NULL, SYSTEM_PROVIDER
from vsssnap.errors import UsageError


def document_text(document: bytes | str) -> str:
    """A backup components document as VSS takes it.

    Raises:
        UsageError: it is no text.
    """
    if isinstance(document, str):
        return document
    if not isinstance(cast("object", document), bytes):
        raise UsageError(f"the document is {type(document).__name__}, no text")
    try:
        return document.decode("utf-8", "surrogatepass")
    except ValueError as exc:
        raise UsageError(f"the document is no text: {exc}") from None


class ComSecurity(enum.Enum):
    """Who sets the COM security of this process, which is set once in its life."""

    AUTO = "auto"
    """Set it if nobody has, so that writers can call back; go on if it cannot be set."""
    NEVER = "never"
    """Leave it to the host program.  Writers that cannot call back leave event 8194 in the log."""
    REQUIRE = "require"
    """Fail if it is neither set nor can be."""


class BackupKind(enum.Enum):
    """What writers are told of the kind of backup (VSS_BACKUP_TYPE)."""

    COPY = "copy"
    """It disturbs no other product's chain of backups, and no log is truncated."""
    FULL = "full"
    """A full backup: applications may truncate their logs when it is complete."""
    INCREMENTAL = "incremental"
    """What changed since the last backup, as applications reckon it."""
    DIFFERENTIAL = "differential"
    """What changed since the last full backup."""
    LOG = "log"
    """The logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentSelector:
    r"""Components of a writer: one, with all below it, or all of the writer.

    Attributes:
        writer: Its name, class id or instance id.
        path: Logical path and name of a component (``"SERVER\\INSTANCE\\database"``), or of what lies
            above some; "" for all of the writer.  Case does not matter.
        options: What the writer is to know for these, in its own language (SetBackupOptions); "" for
            nothing.  Of what is included alone.
    """

    writer: str | UUID
    path: str = ""
    options: str = ""

    def __post_init__(self) -> None:
        writer, path = cast("object", self.writer), cast("object", self.path)
        if not isinstance(writer, str | UUID) or not writer or not isinstance(path, str):
            raise UsageError(f"no component: {self.writer!r}, {self.path!r}", hint="name a writer")
        if not isinstance(cast("object", self.options), str) or "\0" in self.options:
            raise UsageError(f"options are {self.options!r}", hint="pass a text without null characters")


def _selectors(value: object) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(one, ComponentSelector) for one in value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentSelection:
    """Which components of writers are backed up: "component mode".

    A component is taken with all that its writer puts below it, or not at all.  What lies on a volume
    outside the snapshot, and what contains such, is left out, and so is what is excluded.  What writers
    do not let anybody choose comes with the writer; what a component says it depends on comes, too.

    Attributes:
        include: What is wanted; None for all that lies on the volumes.
        exclude: What is not.
        kind: What writers are told.  An image holds all blocks whatever that is: it decides what applications
            do with their logs, and what they note for the next backup.
        based_on: The backup components document of the backup that this one continues
            (``metadata.documents["vss/backup-components.xml"]``): writers get the stamps that they left
            there.  Only with an INCREMENTAL, DIFFERENTIAL or LOG backup.
    """

    include: Sequence[ComponentSelector] | None = None
    exclude: Sequence[ComponentSelector] = ()
    kind: BackupKind = BackupKind.COPY
    based_on: bytes | str | None = None

    def __post_init__(self) -> None:
        if not _selectors(self.exclude):
            raise UsageError(f"exclude is {self.exclude!r}", hint="pass a tuple of ComponentSelector objects")
        if self.include is not None and not (self.include and _selectors(self.include)):
            raise UsageError(
                f"include is {self.include!r}", hint="pass ComponentSelector objects, or None for all"
            )
        if not isinstance(self.kind, BackupKind):
            raise UsageError(f"kind is {self.kind!r}", hint="pass a BackupKind")
        if any(one.options for one in self.exclude):
            raise UsageError("what is excluded has options", hint="pass them with what is included")
        if self.based_on is not None:
            if self.kind in (BackupKind.COPY, BackupKind.FULL):
                raise UsageError(f"a {self.kind.value} backup continues none", hint="pass another kind")
            document_text(self.based_on)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimeouts:
    """How long each step of VSS may take, in seconds, all within the ``timeout`` of the snapshot.

    A step that is late is cancelled, waited for until it has stopped, and aborted.

    Attributes:
        gather_writers: GatherWriterMetadata: writers say what they have.
        prepare_writers: PrepareForBackup: writers get ready.
        ask_writers: GatherWriterStatus: writers say how they are.
        do_snapshot_set: DoSnapshotSet: the freeze and the copy.
        backup_complete: BackupComplete: writers take note.
    """

    gather_writers: float = 300.0
    prepare_writers: float = 300.0
    ask_writers: float = 120.0
    do_snapshot_set: float = 600.0
    backup_complete: float = 300.0

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise UsageError(f"{one.name} is {value!r}", hint="pass seconds > 0; math.inf for no limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class VssOptions:
    r"""Options of the provider ``vss``; passing them to `Snapshot` chooses it.

    Attributes:
        writers: Whether applications take part.  Without them it is quicker, and at most FILESYSTEM.
        exclude_writers: Names or class ids of writers that shall not.
        components: Back up components of writers: only those writers take part whose components are
            chosen, and they are told what became of each.  None for whole volumes, where all do.
        auto_recovery: Whether applications may finish the shadow copy by writing into it once.
            False keeps it as it was at the instant, to the byte.
        vss_provider: Id of the VSS provider; None for the one that Windows chooses, ``"system"`` for
            Windows' own.
        com_security: Who sets the COM security of this process.
        allow_unelevated: Try without an administrator's token: the account is listed under
            ``HKLM\\SYSTEM\\CurrentControlSet\\Services\\VSS\\VssAccessControl``.
        timeouts: How long single steps may take.
    """

    writers: bool = True
    exclude_writers: Sequence[str | UUID] = ()
    components: ComponentSelection | None = None
    auto_recovery: bool = True
    vss_provider: UUID | str | None = None
    com_security: ComSecurity = ComSecurity.AUTO
    allow_unelevated: bool = False
    timeouts: StepTimeouts = StepTimeouts()

    def __post_init__(self) -> None:
        self.provider_id()
        if not isinstance(cast("object", self.timeouts), StepTimeouts):
            raise UsageError(f"timeouts is {self.timeouts!r}", hint="pass a StepTimeouts")
        if not isinstance(self.exclude_writers, tuple | list):
            raise UsageError("exclude_writers is no tuple", hint="pass a tuple of names or ids")
        if self.components is not None:
            if not isinstance(self.components, ComponentSelection):
                raise UsageError("components is no ComponentSelection")
            if not self.writers:
                raise UsageError("components are those of writers, and writers=False leaves these out")

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
