"""What it takes to time a method: a stopwatch, networks that need no training, the plain algorithm, the floor."""
