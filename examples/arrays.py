"""Slices as an array: fit on healthy ones, find lesions in others.

Run: python examples/arrays.py    (about three minutes on two CPU cores; needs skmimood[report] for the phantom)
"""

import numpy as np

from skmimood import make_mimood_pipeline
from skmimood.datasets import make_brain_phantom
from skmimood.metrics import auroc, average_precision, best_dice

# Any (n, H, W) array with intensities in [0, 1] will do; here brain phantoms stand in for real slices.
healthy, _ = make_brain_phantom(300, size=64, modality="t2", random_state=0)
scans, lesions = make_brain_phantom(24, size=64, modality="t2", lesions=True, random_state=1)

# The preset is made for 64 x 64 pixels, as these are; so few slices need fewer steps.
pipe = make_mimood_pipeline(preset="tiny", random_state=0, verbose=True)
for step in pipe:
    step.set_params(training__max_iter=600)
pipe.set_params(tokenizer__channel_multipliers=(1, 2), detector__threshold=0.1)  # tokens of 4 x 4 pixels
pipe.fit(healthy)

maps = pipe.decision_function(scans)  # (n, H, W), higher is more anomalous
masks = pipe.predict(scans)  # (n, H, W) bool, at a threshold from held-out healthy slices
healed = pipe.transform(scans)  # (n, H, W), what the slices would look like without their lesions

print(f"{lesions.mean():.1%} of the pixels are lesion, {masks.mean():.1%} are marked")
print(f"healing changes a lesion pixel by {np.abs(healed - scans)[lesions].mean():.3f} on average")
print(f"AUROC {auroc(lesions, maps):.3f}")
print(f"AP {average_precision(lesions, maps):.3f}, best Dice {best_dice(lesions, maps):.3f}")
