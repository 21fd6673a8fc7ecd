"""Libraries that do the cases, a file each, imported only when asked for."""
