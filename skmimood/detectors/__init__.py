"""Rivals that take slices and return maps, without tokens. One method, one file.

Networks belong into `skmimood.networks`, residuals and filters of maps into `skmimood.maps`.
"""
