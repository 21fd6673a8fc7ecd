"""Measuring: cases with their data and checks, the libraries that do them, and what the machine could do at best."""
