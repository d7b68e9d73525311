"""
Saving and loading
==================

A model is saved as a folder of arrays (safetensors) and JSON behind checksums. Loading one executes nothing: no pickle
is involved. A model that was fitted on a GPU opens on a machine without one.
"""

# %%

import tempfile
from pathlib import Path

import numpy as np

from skmimood import load_model, make_mimood_pipeline, save_model
from skmimood.datasets import make_brain_phantom

healthy, _ = make_brain_phantom(100, size=32, random_state=0)
scans, _ = make_brain_phantom(4, size=32, lesions=True, random_state=1)
pipe = make_mimood_pipeline("toy", random_state=0)
pipe.fit(healthy)

# %%
# Save
# ----
#
# Any pipeline or estimator of this package can be saved. A :class:`~skmimood.ScanDetector` has methods for it:
# ``detector.save("model/")`` and ``ScanDetector.load("model/")``.

folder = Path(tempfile.mkdtemp()) / "model"
save_model(pipe, folder)
for path in sorted(folder.iterdir()):
    print(f"{path.stat().st_size / 1000:8.0f} kB  {path.name}")

# %%
# Load
# ----
#
# The maps are the same, to the byte on the same processor with the same number of threads, else but for rounding.

again = load_model(folder)
np.array_equal(again.decision_function(scans), pipe.decision_function(scans))

# %%
# A damaged file is noticed before anything of it is used:

arrays = next(folder.glob("*.safetensors"))
arrays.write_bytes(arrays.read_bytes()[:-1] + b"?")
try:
    load_model(folder)
except ValueError as error:
    print(type(error).__name__, "-", error)

# %%
# Networks that were trained
# --------------------------
#
# are a different matter: ``memory=`` of the pipeline is a cache on your own disk, in which an equal training by the
# same code is found again. It makes searches and repeated fits quick, and may be deleted at any time. By default it is
# deleted with the process; ``make_mimood_pipeline(memory="cache/")`` keeps it.
