"""One module for each ``python -m benchmarks <command>``: its options, what it runs, what it writes.

What two commands need belongs in a folder below, and so does everything that reads results.
"""
