"""The command line ``alakai``."""
