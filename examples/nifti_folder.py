"""Your own folder of NIfTI scans: fit on healthy ones, map what is abnormal in the others.

Run: python examples/nifti_folder.py HEALTHY_DIR SCANS_DIR OUT_DIR
Without arguments it writes and uses a phantom cohort in a temporary folder (about three minutes on two CPU cores).
"""

import sys
import tempfile
from pathlib import Path

from skmimood import ScanDetector, make_mimood_pipeline
from skmimood.datasets import write_phantom_dataset


def main(healthy, scans, output) -> None:
    pipe = make_mimood_pipeline(preset="tiny", random_state=0)
    # For the small phantom; drop these for real work.
    for step in pipe:
        step.set_params(training__max_iter=400)
    pipe.set_params(tokenizer__channel_multipliers=(1, 2), detector__threshold=0.1)
    # mask="_brainmask" would strip the skull with a mask beside each scan; modality="T1" would choose among files.
    detector = ScanDetector(pipe, plane="axial", size=64, verbose=True).fit(healthy)
    print(
        f"pixels above {detector.pixel_threshold_:.3f} are called anomalous, scans above {detector.scan_threshold_:.3f}"
    )

    output = Path(output)
    for result in detector.detect(scans):
        result.save(output)  # anomaly map, p-values, mask and healed scan, each on the scan's own grid
        print(f"{result.id}: score {result.score:.3f}, p = {result.pvalue:.3f} {'; '.join(result.flags)}")

    detector.save(output / "model")
    again = ScanDetector.load(output / "model")  # on this machine or another, with or without a GPU
    assert again.pixel_threshold_ == detector.pixel_threshold_


if __name__ == "__main__":
    if len(sys.argv) == 4:
        main(*sys.argv[1:])
    else:
        with tempfile.TemporaryDirectory() as folder:
            cohort = write_phantom_dataset(
                f"{folder}/cohort", n_healthy=16, n_lesions=4, size=64, random_state=0
            )
            main(cohort.healthy, cohort.scans, f"{folder}/out")
