"""Whole jobs over files: fit a model, score a folder, write the report, run the demo."""
