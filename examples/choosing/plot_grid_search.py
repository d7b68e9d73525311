"""
Grid search
===========

Choose lambda, T and R on validation slices. The networks are trained once, not once a candidate: these parameters are
not part of what a cached training depends on.
"""

# %%
# Slices whose mask is not empty are never learned from, so lesions may be mixed with healthy slices. Fold -1 is only
# learned from, fold 0 validates.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from skmimood import RestorationSearchCV, make_mimood_pipeline
from skmimood.datasets import make_brain_phantom
from skmimood.metrics import pixel_average_precision_scorer
from skmimood.plotting import SearchCurveDisplay

healthy, no_lesions = make_brain_phantom(100, size=32, random_state=0)
validation, lesions = make_brain_phantom(10, size=32, lesions=True, random_state=1)
slices, masks = np.concatenate([healthy, validation]), np.concatenate([no_lesions, lesions])
fold = np.repeat([-1, 0], [len(healthy), len(validation)])

pipe = make_mimood_pipeline("toy", random_state=0)

# %%
# lambda, T and R
# ---------------
#
# :class:`~skmimood.RestorationSearchCV` is scikit-learn's ``GridSearchCV`` for these three: the same scores and the
# same choice, from one run for each lambda, since fewer steps and restorations are the beginning of a longer run.

grid = {
    "detector__threshold": [0.003, 0.01, 0.03, 0.1, 0.3],
    "inpainter__n_steps": [1, 2, 4],
    "inpainter__n_restorations": [1, 4],
}
search = RestorationSearchCV(pipe, grid, cv=PredefinedSplit(fold), scoring=pixel_average_precision_scorer)
search.fit(slices, masks)
search.best_params_

# %%

_, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
SearchCurveDisplay.from_estimator(search, "detector__threshold", by="inpainter__n_steps", ax=axes[0])
SearchCurveDisplay.from_estimator(search, "inpainter__n_restorations", by="inpainter__n_steps", ax=axes[1])
plt.show()

# %%
# Look at the numbers along the axis before you believe a maximum: all of these candidates lie within 0.04, which ten
# slices do not tell apart. With the largest lambda hardly a token is resampled, so that T and R change nothing.
#
# Any other parameter
# -------------------
#
# is searched over by ``GridSearchCV``. How restorations become maps needs no training either.

others = GridSearchCV(
    search.best_estimator_,
    {"inpainter__maps__fusion": ["none", "geometric"], "inpainter__maps__erosion": [0, 2]},
    cv=PredefinedSplit(fold),
    scoring=pixel_average_precision_scorer,
)
others.fit(slices, masks)
for parameters, score in zip(
    others.cv_results_["params"], others.cv_results_["mean_test_score"], strict=True
):
    print(f"{score:.3f}", parameters)

# %%
# What was chosen is fitted to these ten slices. Report what it reaches on others, and remember that most users have
# no lesions to choose by: for them the defaults count.
