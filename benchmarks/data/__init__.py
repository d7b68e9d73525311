"""Slices that the benchmarks learn from and are scored on: read from scans, planted with lesions, kept in a file."""
