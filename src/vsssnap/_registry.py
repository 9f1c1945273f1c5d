"""Drivers by name: built-ins in a lazy table, guests by entry points.

A built-in is a dotted path that is imported at first use, so that importing the library
loads no driver.  A guest is a distribution that declares an entry point in the group; its
class carries an integer ``api``.  A guest that fails to load, or was made for another
``api``, is left out and `Registry.problems` says why: one broken guest never breaks the
others.  Two drivers of one name are an error that names both, raised when that name is asked
for.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Generic, TypeVar, cast

from vsssnap.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """The drivers of one kind.  Thread-safe; guests are looked up once, at first use."""

    def __init__(self, kind: str, group: str, base: str, api: int, builtins: Mapping[str, str]) -> None:
        """Describe a kind of driver.

        Args:
            kind: Its name in messages ("image format").
            group: Its entry-point group ("vsssnap.formats").
            base: Dotted path (``module:Class``) of the class that every driver extends.
            api: The version of that class; a guest must carry the same number.
            builtins: Dotted paths by driver name.
        """
        self._kind = kind
        self._group = group
        self._base = base
        self._api = api
        self._builtins = dict(builtins)
        self._lock = threading.RLock()
        self._guests: dict[str, list[metadata.EntryPoint]] | None = None
        self._loaded: dict[str, type[T]] = {}
        self._problems: dict[str, str] = {}

    def names(self) -> list[str]:
        """All driver names, built-ins first, whether or not they load."""
        return [*self._builtins, *(name for name in self._entries() if name not in self._builtins)]

    def get(self, name: str) -> type[T]:
        """The driver class of a name.

        Raises:
            UsageError: no driver has this name, two have it, or the guest does not load.
        """
        with self._lock:
            if name in self._loaded:
                return self._loaded[name]
            guests = self._entries().get(name, [])
            owners = [f"vsssnap ({self._builtins[name]})"] if name in self._builtins else []
            owners += [_owner(entry) for entry in guests]
            if not owners:
                raise UsageError(
                    f"there is no {self._kind} {name!r}", hint=f"known are {', '.join(self.names())}"
                )
            if len(owners) > 1:
                raise UsageError(
                    f"{self._kind} {name!r} is declared by {' and by '.join(owners)}",
                    hint="uninstall all but one",
                )
            driver = self._builtin(name) if name in self._builtins else self._guest(name, guests[0])
            self._loaded[name] = driver
            return driver

    def load(self) -> dict[str, type[T]]:
        """Every driver that loads, by name; what does not is in `problems` afterwards."""
        found: dict[str, type[T]] = {}
        for name in self.names():
            try:
                found[name] = self.get(name)
            except UsageError as exc:
                self._problems.setdefault(name, exc.message)
        return found

    def problems(self) -> dict[str, str]:
        """Why some drivers cannot be used, by name."""
        self.load()
        return dict(self._problems)

    def _entries(self) -> dict[str, list[metadata.EntryPoint]]:
        with self._lock:
            if self._guests is None:
                self._guests = {}
                for entry in metadata.entry_points(group=self._group):
                    known = self._guests.setdefault(entry.name, [])
                    # A distribution that is on sys.path twice shows every entry twice.
                    if all((other.value, _owner(other)) != (entry.value, _owner(entry)) for other in known):
                        known.append(entry)
            return self._guests

    def _builtin(self, name: str) -> type[T]:
        return cast("type[T]", _load(self._builtins[name]))

    def _guest(self, name: str, entry: metadata.EntryPoint) -> type[T]:
        if name not in self._problems:
            try:
                return self._checked(entry)
            except Exception as exc:  # a guest's import may raise anything
                self._problems[name] = f"{_owner(entry)}: {type(exc).__name__}: {exc}"
        raise UsageError(f"{self._kind} {name!r} does not load: {self._problems[name]}")

    def _checked(self, entry: metadata.EntryPoint) -> type[T]:
        driver = entry.load()
        base = _load(self._base)
        if not (isinstance(driver, type) and issubclass(driver, base)):
            raise TypeError(f"{entry.value} is no subclass of {self._base.replace(':', '.')}")
        api = getattr(driver, "api", None)
        if api != self._api:
            raise TypeError(f"made for api {api}, this vsssnap has api {self._api}")
        return cast("type[T]", driver)


def _owner(entry: metadata.EntryPoint) -> str:
    dist = entry.dist
    return f"{dist.name} {dist.version} ({entry.value})" if dist is not None else entry.value


def _load(path: str) -> Any:  # noqa: ANN401 - a class found by name
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
