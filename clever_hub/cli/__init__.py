"""The command line ``clever-hub``."""
