"""Volumes that are mounted in folders of others."""

from __future__ import annotations

import pytest

from vsssnap import Snapshot
from vsssnap.errors import ProviderUnavailableError
from vsssnap.testing.fake_vss import FakeVss
from vsssnap.vss import volumes_below


def test_only_what_is_mounted_below_is_listed_once(fake_vss: FakeVss) -> None:
    c = fake_vss.add_volume("C:\\")
    fake_vss.add_volume("D:\\", "C:\\Mnt\\data\\", "c:\\mnt\\again\\")
    fake_vss.add_volume("C:\\Mnt\\data\\deeper\\")
    fake_vss.add_volume("E:\\")
    fake_vss.add_volume("F:\\C:\\no\\")
    assert volumes_below("C:") == ["c:\\mnt\\again\\", "C:\\Mnt\\data\\deeper\\"]
    assert volumes_below(c.guid_path) == volumes_below("C:")
    assert volumes_below("D:") == ["C:\\Mnt\\data\\deeper\\"]
    assert volumes_below("E:") == []
    fake_vss.check()


def test_volumes_in_folders_below_are_of_the_same_instant_if_asked(fake_vss: FakeVss) -> None:
    c = fake_vss.add_volume("C:\\", data=b"outer")
    data = fake_vss.add_volume("C:\\data\\", data=b"inner")
    with Snapshot("C:", *volumes_below("C:")) as s:
        c.pwrite(b"later", 0)
        data.pwrite(b"later", 0)
        assert [s.open(name).pread(5, 0) for name in ("C:", "C:\\data\\")] == [b"outer", b"inner"]
        assert len({volume.device for volume in s.volumes.values()}) == 2
    with Snapshot("C:") as s:
        assert list(s.volumes) == ["C:"], "never unasked"
    fake_vss.check()


def test_a_volume_that_is_not_there_is_named(fake_vss: FakeVss) -> None:
    with pytest.raises(ProviderUnavailableError, match="Q:"):
        volumes_below("Q:")


@pytest.mark.posix("it is there")
def test_without_windows_it_says_so() -> None:
    with pytest.raises(ProviderUnavailableError):
        volumes_below("C:")
