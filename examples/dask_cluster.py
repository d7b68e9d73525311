"""Score a folder of scans on a Dask cluster, here of two processes on this machine.

Run: python examples/dask_cluster.py MODEL_DIR SCANS_DIR OUT_DIR    (needs skmimood[dask])
Without arguments it fits a quick model on a phantom cohort and scores that (about two minutes on two CPU cores).

On a real cluster, replace LocalCluster() by the address of its scheduler: Client("tcp://scheduler:8786"). Model, scans
and output must be folders that all machines see at the same paths.
"""

import sys
import tempfile
from pathlib import Path

import joblib
from distributed import Client, LocalCluster

from skmimood import ScanDetector, make_mimood_pipeline
from skmimood.datasets import write_phantom_dataset
from skmimood.jobs.scoring import ScoreJob, score_scans


def main(model, scans, output) -> None:
    # Dask gives each worker one CPU thread; ScoreJob(n_threads=...) gives it more.
    job = ScoreJob(resume=True)  # the same command goes on where it was stopped
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        table = score_scans(scans, Path(model), Path(output), job, say=print)
    for outcome in table.outcomes:
        print(outcome.id, outcome.status, outcome.score, outcome.reason)


if __name__ == "__main__":  # the workers import this file
    if len(sys.argv) == 4:
        model, scans, output = sys.argv[1:]
        main(model, [scans], output)
    else:
        with tempfile.TemporaryDirectory() as folder:
            cohort = write_phantom_dataset(
                f"{folder}/cohort", n_healthy=6, n_lesions=4, size=64, random_state=0
            )
            pipe = make_mimood_pipeline(preset="tiny", random_state=0)
            for step in pipe:
                step.set_params(training__max_iter=50)
            ScanDetector(pipe, size=64).fit(cohort.healthy).save(f"{folder}/model")
            main(f"{folder}/model", cohort.scans, f"{folder}/out")
