"""Every built-in format keeps the contract of `ImageFormat`, with its default options."""

from __future__ import annotations

import pytest

from vsssnap.formats import available, by_name
from vsssnap.testing import check_format


@pytest.mark.parametrize("name", [name for name, problem in available().items() if not problem])
def test_format_keeps_the_contract(name: str) -> None:
    check_format(by_name(name))
