"""
A cohort on a Dask cluster
==========================

Scoring runs on any backend of joblib. Here a cluster of two processes on this machine scores a folder; on a real one,
give the address of its scheduler instead: ``Client("tcp://scheduler:8786")``. Model, scans and output must be folders
that all machines see at the same paths.
"""

# %%
# A model and some scans. With your own, this section is what ``skmimood fit`` does.

import tempfile
from pathlib import Path

import joblib
from distributed import Client, LocalCluster

from skmimood import ScanDetector, make_mimood_pipeline
from skmimood.datasets import write_phantom_dataset
from skmimood.jobs.scoring import ScoreJob, score_scans

folder = Path(tempfile.mkdtemp())
cohort = write_phantom_dataset(folder, n_healthy=10, n_lesions=3, size=32, n_slices=8, random_state=0)
pipe = make_mimood_pipeline("toy", random_state=0)
ScanDetector(pipe, size=32, scan_fpr=0.2).fit(cohort.healthy).save(folder / "model")

# %%
# Score
# -----
#
# Each worker loads the model once. With ``resume=True`` the same call goes on where it was stopped, and several
# jobs may share one output folder. A scan that fails is recorded, and the others are scored. Dask gives each worker
# one thread; ``ScoreJob(n_threads=...)`` gives it more.

with (
    LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
    Client(cluster),
    joblib.parallel_config(backend="dask"),
):
    table = score_scans(cohort.scans, folder / "model", folder / "out", ScoreJob(resume=True), say=print)

for outcome in table.outcomes:
    print(outcome.id, outcome.status, f"{outcome.score:.3g}", outcome.reason)

# %%
# In a program of your own, put the second part under ``if __name__ == "__main__":``, since the workers import it.
#
# Without Dask, processes of this machine do the same: ``skmimood score scans/ -m model/ -o out/ --jobs 4``, or
# ``ScoreJob(n_jobs=4)``. ``ScanDetector(n_jobs=...)`` and ``GridSearchCV`` take the active backend too.
