"""Snapshots by the Volume Shadow Copy Service.

`sequence` is the order of calls as a table, `requester` runs it on the thread of `worker`, `writers`
judges what applications report, `names` finds volumes, `reader` reads shadow copies; `provider` joins
them.  Everything is written against a `vsssnap._win32.dll.System`, so all of it runs on any system.
"""
