"""Array operations on a GPU, by numba.cuda kernels."""
