"""Tables and figures made of the files in ``results/`` alone.

Nothing here fits, times or writes a result: the report can be drawn anew on any machine, without data.
"""
