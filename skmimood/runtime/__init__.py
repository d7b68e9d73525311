"""Where a computation runs and what it draws: devices, processes, random streams, and the cache of trainings."""
