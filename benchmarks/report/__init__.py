"""Tables and figures made of the files in ``results/`` alone."""
