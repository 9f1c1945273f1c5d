"""What is particular to Windows, and the only place that knows cffi; imports everywhere.

`build_ffi` makes `_ffi` from ``cdef``; `dll` opens libraries at their first use; `com`,
`handles` and `volumes` turn calls into Python.  Nothing is loaded when this is imported.
"""
