"""The CPU backend: Numba kernels."""
