"""What the POSIX system below gives (floor 2); importable only there."""
