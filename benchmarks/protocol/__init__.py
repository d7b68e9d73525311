"""What is compared, and how: methods, variants of the recipe, fit, choice on val, test, intervals.

Nothing here reads a command line, writes a result or draws a figure.
"""
