"""How fast vsssnap is beside its peers; ``python -m benchmarks --help``."""
