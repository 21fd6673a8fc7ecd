"""Scalar formulas that the CPU and CUDA backends share."""
