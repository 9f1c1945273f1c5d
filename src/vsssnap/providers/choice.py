"""Which providers there are, and which one takes a snapshot."""

from __future__ import annotations

import sys
from typing import Any

from vsssnap._registry import Registry
from vsssnap.consistency import Consistency
from vsssnap.errors import (
    ConsistencyError,
    ProviderUnavailableError,
    SnapshotPermissionError,
    UsageError,
)
from vsssnap.providers.base import PROVIDER_API, Offer, Provider, SnapshotRequest

__all__ = ["available", "by_name", "choose", "offers"]

# In order of preference: the first that offers enough is taken.
_BUILTINS = {
    "cow": "vsssnap.providers.cow:CowProvider",
    "vss": "vsssnap.providers.vss.provider:VssProvider",
}
if sys.platform != "win32":
    _BUILTINS["reflink"] = "vsssnap.providers.reflink:ReflinkProvider"
    _BUILTINS["static"] = "vsssnap.providers.static:StaticProvider"

_REGISTRY: Registry[Any] = Registry(
    "snapshot provider",
    "vsssnap.providers",
    "vsssnap.providers.base:Provider",
    PROVIDER_API,
    _BUILTINS,
)


def by_name(name: str) -> Provider:
    """A new object of the named provider.

    Raises:
        UsageError: there is none, two packages declare it, or it does not load.
    """
    provider: Provider = _REGISTRY.get(name)()
    return provider


def available() -> dict[str, str]:
    """Every provider by name: "" if this machine and process can use it, else why not."""
    problems = _REGISTRY.problems()
    return {name: problems.get(name) or by_name(name).unusable() for name in _REGISTRY.names()}


def offers(request: SnapshotRequest, *, only: str | None = None) -> list[tuple[str, Provider | None, Offer]]:
    """Ask every provider (or one) what it offers: ``(name, provider, offer)`` in order of preference."""
    found: list[tuple[str, Provider | None, Offer]] = []
    problems = {} if only else _REGISTRY.problems()
    for name in [only] if only else _REGISTRY.names():
        if name in problems:
            found.append((name, None, Offer(None, problems[name])))
            continue
        provider = by_name(name)
        reason = provider.unusable()
        if not reason and request.options is not None and not _takes(provider, request.options):
            reason = f"does not take {type(request.options).__name__}"
        if reason:
            elsewhere = bool(provider.platforms) and sys.platform not in provider.platforms
            found.append((name, provider, Offer(None, reason, unrelated=elsewhere)))
        else:
            found.append((name, provider, provider.probe(request)))
    return found


def choose(request: SnapshotRequest, *, only: str | None = None) -> Provider:
    """The first provider that offers what is required.

    Args:
        request: What is asked.
        only: Ask this provider alone.

    Raises:
        UsageError: ``only`` names no provider.
        ProviderUnavailableError: none can snapshot these volumes; ``.reasons`` says why for each.
        SnapshotPermissionError: one could, if this process had the rights.
        ConsistencyError: some can, but none as consistently as required.
    """
    reasons: dict[str, str] = {}
    unrelated: list[str] = []
    denied = False
    best: Consistency | None = None
    for name, provider, offer in offers(request, only=only):
        level = offer.level
        if level is not None and provider is not None:
            if request.quiesced:
                level = Consistency.APPLICATION
            if level >= request.require:
                return provider
            best = max(best or level, level)
            reasons[name] = f"offers {level.name}" + (f": {offer.reason}" if offer.reason else "")
        else:
            reasons[name] = offer.reason
            denied = denied or offer.denied
            if offer.unrelated:
                unrelated.append(name)
    what = ", ".join(str(volume) for volume in request.volumes)
    if best is None and denied:
        raise SnapshotPermissionError(
            f"{what} may not be snapshotted by this user",
            reasons=reasons,
            unrelated=unrelated,
            hint="run as an administrator (on Linux, root)",
        )
    if best is None:
        raise ProviderUnavailableError(
            f"no provider can snapshot {what}",
            reasons=reasons,
            unrelated=unrelated,
            hint="each provider says why not",
        )
    raise ConsistencyError(
        f"{what}: {request.require.name} is required and {best.name} is the most there is",
        wanted=request.require.name,
        offered=best.name,
        reasons=reasons,
        unrelated=unrelated,
        hint="pass quiesce= managers that declare APPLICATION, or lower require=",
    )


def for_options(options: object) -> str:
    """Name of the provider whose options these are.

    Raises:
        UsageError: no provider takes them.
    """
    for name, driver in _REGISTRY.load().items():
        if driver.options_type is not None and isinstance(options, driver.options_type):
            return name
    raise UsageError(f"{type(options).__name__} is no provider's options")


def _takes(provider: Provider, options: object) -> bool:
    return provider.options_type is not None and isinstance(options, provider.options_type)
