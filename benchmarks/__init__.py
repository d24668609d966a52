"""Benchmarks: ``python -m benchmarks.kernels``, ``.training``, ``.startup``; see README.md here."""
