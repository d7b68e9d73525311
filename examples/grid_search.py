"""Choose lambda, T and R on validation slices: the networks are trained once, not once a candidate.

Run: python examples/grid_search.py    (about three minutes on two CPU cores; needs skmimood[report] for the phantom)
"""

import numpy as np
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from skmimood import make_mimood_pipeline
from skmimood.datasets import make_brain_phantom
from skmimood.metrics import pixel_average_precision_scorer

healthy, no_lesions = make_brain_phantom(200, size=64, random_state=0)
validation, lesions = make_brain_phantom(16, size=64, lesions=True, random_state=1)

# Fold -1 is only ever learnt from, fold 0 is the validation set. Slices with a lesion are dropped from every fit.
slices, masks = np.concatenate([healthy, validation]), np.concatenate([no_lesions, lesions])
fold = np.r_[np.full(len(healthy), -1), np.zeros(len(validation), int)]

pipe = make_mimood_pipeline(preset="tiny", random_state=0, verbose=True)
for step in pipe:
    step.set_params(training__max_iter=400)

search = GridSearchCV(
    pipe,
    {
        "detector__threshold": [0.03, 0.1, 0.3],
        "inpainter__n_steps": [2, 4],
        "inpainter__n_restorations": [1, 4],
    },
    cv=PredefinedSplit(fold),
    scoring=pixel_average_precision_scorer,
)
search.fit(slices, masks)

for parameters, score in zip(
    search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
):
    print(f"{score:.3f}", parameters)
print("best:", search.best_params_)
