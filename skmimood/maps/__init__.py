"""From what a method computes to a map: residuals and filters, thresholds and p-values of healthy data.

The base of every last step lies here too. Nothing here knows tokens, files or networks.
"""
