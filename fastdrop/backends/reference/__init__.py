"""The reference backend: every operation of the seam in plain NumPy, the living definition of what it means."""
