"""One module for each ``python -m benchmarks <command>``: its options, what it runs, what it writes."""
