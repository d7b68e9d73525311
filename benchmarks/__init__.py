"""Real runs on real scans; see benchmarks/README.md. Small result files are committed in benchmarks/results."""
