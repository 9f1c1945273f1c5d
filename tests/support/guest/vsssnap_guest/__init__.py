"""What somebody else's package adds to vsssnap: the format ``box`` and the provider ``copier``."""
