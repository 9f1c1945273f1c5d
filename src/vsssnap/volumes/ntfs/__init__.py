"""NTFS: which clusters are used, and which files an image need not hold."""
