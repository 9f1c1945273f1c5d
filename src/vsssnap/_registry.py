"""Drivers by name: built-ins in a lazy table, guests by entry points.

A built-in is a dotted path that is imported at first use, so that importing the library
loads no driver.  A guest is a distribution that declares an entry point in the group; its
class carries an integer ``api``.  A guest that fails to load, or was made for another
``api``, is left out and `Registry.problems` says why: one broken guest never breaks the
others, nor does a distribution whose list of entry points cannot be read.  Two drivers of one
name are an error that names both, raised when that name is asked for.

No lock is held while a driver is imported: its module may ask for drivers itself, on a thread
that holds its import lock.  Two threads that load one driver at once get the same class.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from vsssnap.errors import UsageError

if TYPE_CHECKING:
    from importlib import metadata

T = TypeVar("T")

_STDLIB = "python{}{}.zip".format(*sys.version_info)  # where an embedded Python has its own modules
_LISTS = (".dist-info", ".egg-info", ".egg")  # importlib.metadata, FastPath

_log = logging.getLogger("vsssnap.registry")


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
        self._lent: dict[str, type[T]] = {}

    def names(self) -> list[str]:
        """All driver names, built-ins first, whether or not they load."""
        return list(dict.fromkeys([*self._lent, *self._builtins, *self._entries()]))

    @property
    def is_lending(self) -> bool:
        """Whether there are drivers ahead of the built-ins; see `lent`."""
        return bool(self._lent)

    def get(self, name: str) -> type[T]:
        """The driver class of a name.

        Raises:
            UsageError: no driver has this name, two have it, or the guest does not load.
        """
        lent = self._lent.get(name)
        if lent is not None:
            return lent
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
        if name not in self._problems:
            try:
                driver = self._checked(name, guests[0].load() if guests else _load(self._builtins[name]))
            except (Exception, SystemExit) as exc:  # a module that is imported may raise anything
                self._problems[name] = f"{owners[0]}: {type(exc).__name__}: {exc}"
                _log.info("%s %r does not load", self._kind, name, exc_info=True)
            else:
                return self._loaded.setdefault(name, driver)
        raise UsageError(
            f"{self._kind} {name!r} does not load: {self._problems[name]}",
            hint="upgrade the package that declares it" if guests else "reinstall vsssnap",
        )

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
        return {name: why for name, why in self._problems.items() if name not in self._lent}

    @contextmanager
    def lent(self, name: str, driver: type[T]) -> Iterator[None]:
        """Have one more driver for a while, ahead of all others and in place of one of its name."""
        with self._lock:
            before = self._lent
            self._lent = {name: driver} | {known: other for known, other in before.items() if known != name}
        try:
            yield
        finally:
            with self._lock:
                self._lent = before

    def _entries(self) -> dict[str, list[metadata.EntryPoint]]:
        with self._lock:
            if self._guests is None:
                self._guests = {}
                for entry in _declared(self._group):
                    known = self._guests.setdefault(entry.name, [])
                    # A distribution that is on sys.path twice shows every entry twice.
                    if all((other.value, _owner(other)) != (entry.value, _owner(entry)) for other in known):
                        known.append(entry)
            return self._guests

    def _checked(self, name: str, driver: object) -> type[T]:
        base = _load(self._base)
        if not (isinstance(driver, type) and issubclass(driver, base)):
            raise TypeError(f"{driver!r} is no subclass of {self._base.replace(':', '.')}")
        api = getattr(driver, "api", None)
        if api != self._api:
            raise TypeError(f"made for api {api}, this vsssnap has api {self._api}")
        if getattr(driver, "name", None) != name:
            raise TypeError(f"its class calls itself {getattr(driver, 'name', None)!r}")
        if inspect.isabstract(driver):
            lacking: frozenset[str] = getattr(driver, "__abstractmethods__", frozenset())
            raise TypeError(f"it lacks {', '.join(sorted(lacking))}")
        return cast("type[T]", driver)


def _declared(group: str) -> Iterator[metadata.EntryPoint]:
    if not _may_be_declared(group):
        return
    from importlib import metadata  # a third of the library's own import time

    try:
        yield from metadata.entry_points(group=group)
        return
    except Exception:  # some distribution, not necessarily a guest, has a list that cannot be parsed
        _log.info("entry points cannot be listed at once", exc_info=True)
    seen = set()
    for dist in metadata.distributions():
        try:
            if dist.name in seen:
                continue  # shadowed by one that is earlier on sys.path
            seen.add(dist.name)
            yield from dist.entry_points.select(group=group)
        except Exception:
            _log.warning("the entry points of %s cannot be read", getattr(dist, "_path", dist), exc_info=True)


def _may_be_declared(group: str) -> bool:
    """Whether a distribution may have an entry point of a group: a glance at the files that list them.

    True where they can be elsewhere: in archives, eggs, and what other finders know.
    """
    finders = (finder for finder in sys.meta_path if finder is not PathFinder)
    if any(hasattr(finder, "find_distributions") for finder in finders):
        return True
    wanted = f"[{group}]".encode()
    for place in sys.path:
        if os.path.basename(place).lower() == _STDLIB:
            continue
        try:
            with os.scandir(place or ".") as found:
                names = [entry.path for entry in found if entry.name.lower().endswith(_LISTS)]
        except FileNotFoundError:
            continue
        except OSError:
            return True
        for name in names:
            if name.lower().endswith(".egg"):
                return True
            try:
                with open(os.path.join(name, "entry_points.txt"), "rb") as file:
                    if wanted in file.read():
                        return True
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                return True
    return False


def _owner(entry: metadata.EntryPoint) -> str:
    try:
        dist = entry.dist
        return f"{dist.name} {dist.version} ({entry.value})" if dist is not None else entry.value
    except Exception:  # its metadata is not there or cannot be read
        return entry.value


def _load(path: str) -> Any:  # noqa: ANN401 - a class found by name
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
