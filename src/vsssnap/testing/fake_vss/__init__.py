"""VSS in this process, on any system: for the tests of programs that take snapshots on Windows.

Its COM objects are real vtables, so what is tested is what runs on Windows down to the calls
themselves.  It refuses what Microsoft's documentation forbids, fails where a test says, loses shadow
copies, and counts what is given out.  With pytest the fixture `fake_vss` of the plug-in
`vsssnap.testing.plugin` is one, checked when the test ends.
"""

from __future__ import annotations

from vsssnap.testing.fake_vss.event_log import FakeEvent as FakeEvent
from vsssnap.testing.fake_vss.fake import FakeVss as FakeVss
from vsssnap.testing.fake_vss.faults import FakeFaults as FakeFaults
from vsssnap.testing.fake_vss.parts import FakeDisk as FakeDisk
from vsssnap.testing.fake_vss.parts import FakeFile as FakeFile
from vsssnap.testing.fake_vss.parts import FakeProvider as FakeProvider
from vsssnap.testing.fake_vss.parts import FakeShadow as FakeShadow
from vsssnap.testing.fake_vss.parts import FakeStorage as FakeStorage
from vsssnap.testing.fake_vss.parts import FakeVolume as FakeVolume
from vsssnap.testing.fake_vss.writers import FakeComponent as FakeComponent
from vsssnap.testing.fake_vss.writers import FakeFiles as FakeFiles
from vsssnap.testing.fake_vss.writers import FakeWriter as FakeWriter
