"""What it takes to time a method: a stopwatch, networks that need no training, the plain algorithm, the least time.

Figures of accuracy do not belong here, nor does what is printed.
"""
