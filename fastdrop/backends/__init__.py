"""Backends: array operations behind one seam (`base.py`). Each is imported only when it is used."""
