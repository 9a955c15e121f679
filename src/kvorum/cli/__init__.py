"""The command line, and the only place where a world is chosen."""
