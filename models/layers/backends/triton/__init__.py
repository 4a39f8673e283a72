"""Triton kernels for CUDA GPUs."""
