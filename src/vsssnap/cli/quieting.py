"""Services and commands of the options ``--stop-service``, ``--before`` and ``--after``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from vsssnap.errors import UsageError

if TYPE_CHECKING:
    from vsssnap.quiesce import QuiesceManager


def managers(given: dict[str, Any]) -> list[QuiesceManager]:
    """What quiets applications, by the options of a command; none of it begins yet.

    Raises:
        UsageError: a command cannot be split, or an option lacks another.
    """
    from vsssnap.consistency import Consistency
    from vsssnap.quiesce import run_commands, service_stopped

    found: list[QuiesceManager] = [
        service_stopped(name, timeout=given["timeout"]) for name in given["services"]
    ]
    if given["before"] or given["after"]:
        found.append(
            run_commands(
                before=_words(given["before"], "--before"),
                after=_words(given["after"], "--after"),
                timeout=given["timeout"],
                claims=Consistency.APPLICATION if given["claims_application"] else None,
            )
        )
    elif given["claims_application"]:
        raise UsageError(
            "--claims-application is about --before and --after", hint="pass at least one of them"
        )
    return found


def _words(text: str | None, option: str) -> list[str]:
    try:
        return shlex.split(text or "")
    except ValueError as exc:
        raise UsageError(f"{option} {text!r} cannot be split into words: {exc}") from None
