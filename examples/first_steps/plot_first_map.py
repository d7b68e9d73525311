"""
Your first map
==============

Learn what healthy slices look like, then find what is abnormal in others.
"""

# %%
# Slices
# ------
#
# Any array of shape (n, H, W) with intensities in [0, 1] will do. Here artificial brains stand in for real slices:
# healthy ones to learn from, and others with a lesion each, whose place is known.

import matplotlib.pyplot as plt

from skmimood import make_mimood_pipeline
from skmimood.datasets import make_brain_phantom
from skmimood.metrics import auroc, average_precision, best_dice
from skmimood.plotting import SliceDisplay

healthy, _ = make_brain_phantom(100, size=32, random_state=0)
scans, lesions = make_brain_phantom(10, size=32, lesions=True, random_state=1)
healthy.shape, scans.shape

# %%
# Fit
# ---
#
# The pipeline is an ordinary one of scikit-learn, with four steps: a tokenizer, a network that looks at the pixels, a
# detector of anomalous tokens, and an in-painter. Preset ``"toy"`` has networks for slices as small as these, and
# trains them for half a minute; leave it out for real work.

pipe = make_mimood_pipeline("toy", random_state=0)
pipe.fit(healthy)

# %%
# Maps, masks and healed slices
# -----------------------------
#
# ``maps`` are higher where a slice is more anomalous. ``masks`` are True where the map exceeds a threshold that 1 %
# of the pixels of held-out healthy slices exceed. ``healed`` are the slices with the abnormal parts replaced; where
# nothing was found they are the slices themselves.

maps = pipe.decision_function(scans)
masks = pipe.predict(scans)
healed = pipe.transform(scans)

_, ax = plt.subplots(figsize=(9.5, 7), layout="constrained")
kinds = ["bright", "dark", "texture", "ring", "mass"]
SliceDisplay.from_predictions(
    scans[:5], maps[:5], healed[:5], pipe[-1].threshold_, y=lesions[:5], row_labels=kinds, ax=ax
)
plt.show()

# %%
# The colour scale is the same for all slices, and its middle is the threshold: dark violet is as usual, yellow is far
# above what healthy pixels reach. Half a minute of training and pixels of 6 mm are enough to find bright lesions and
# parts of dark ones. The others are missed, and single pixels of healthy tissue exceed the threshold, as 1 % of them
# do.
#
# How good is it?
# ---------------
#
# The masks of the lesions tell. Of pixels, few are lesion, so average precision (AP) says more than AUROC; a map
# without any information has an AP of the share of lesion pixels. The best Dice takes the best threshold
# afterwards, so it is an upper bound.

print(f"share of lesion pixels {lesions.mean():.3f}")
print(f"AP {average_precision(lesions, maps):.3f}")
print(f"AUROC {auroc(lesions, maps):.3f}")
print(f"best Dice {best_dice(lesions, maps):.3f}")
