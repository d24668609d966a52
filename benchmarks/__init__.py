"""Benchmarks: ``python -m benchmarks.kernels``, ``.training``, ``.busy``, ``.startup``; see README.md."""
