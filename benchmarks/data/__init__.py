"""Slices that the benchmarks learn from and are scored on: read from scans, planted with lesions, kept in one file.

No method, no figure and no clock belongs here.
"""
