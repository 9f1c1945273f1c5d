"""Sizes of structures, checked in the process that passes them to Windows."""

from __future__ import annotations

from typing import Any

import pytest

from vsssnap._win32 import dll, layout
from vsssnap._win32._ffi import ffi
from vsssnap.errors import ProviderUnavailableError


def test_the_sizes_are_those_of_windows() -> None:
    layout.check()
    assert {name: ffi.sizeof(name) for name in layout.SIZES} == dict(layout.SIZES)


def test_a_size_that_is_wrong_is_named_before_anything_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_library(name: str) -> Any:  # noqa: ANN401 - a library
        opened.append(name)

    monkeypatch.setattr(dll, "_open", open_library)
    system = dll.WindowsSystem()
    assert [system.vssapi] == [None]
    assert opened == ["vssapi.dll"]
    monkeypatch.setattr(layout.check, "__defaults__", ({"GUID": 16, "OVERLAPPED": 28},))
    with pytest.raises(ProviderUnavailableError, match="OVERLAPPED is 32 bytes, not 28") as caught:
        dll.WindowsSystem().vssapi  # noqa: B018 - opens it
    assert "reinstall" in caught.value.hint
    assert opened == ["vssapi.dll"]
