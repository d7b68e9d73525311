"""Where a computation runs and what it draws: devices, threads, processes, random streams, progress, and a cache.

Nothing here knows of networks, scans or estimators. What is computed belongs in `skmimood.networks`,
`skmimood.training` and the methods; reading and writing of scans in `skmimood.nifti`.
"""
