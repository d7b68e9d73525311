"""Whole jobs over files: fit a model, score a folder, write the report, run the demo.

Here belongs what a program needs to work with folders that people, other jobs and other machines use too: which files
are taken, what is written where, locks, resuming, workers, the report and the lines that are printed. How scans are
read, mapped and calibrated belongs to `skmimood.scans`, options and exit status to `skmimood.cli`.
"""
