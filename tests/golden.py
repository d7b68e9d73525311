"""Make the golden model of this version: the recipe of preset tiny in small, two scans, and what it finds in them.

Run it once a release: ``python tests/golden.py``. `test_golden.py` opens the golden models of all releases. The one of
``format-1`` is of before the first release, and of the first format of saved models.
"""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

import skmimood
from skmimood import ScanDetector, make_mimood_pipeline
from skmimood.datasets import make_brain_phantom
from skmimood.nifti import write_image

FOLDER = Path(__file__).parent / "golden"
MODEL = FOLDER / skmimood.__version__ / "model"
_AFFINE = np.diag([5.0, 5.0, 8.0, 1.0])


def scan(seed: int, lesions: bool | str = False) -> nib.Nifti1Image:
    """Return a phantom with skull of 32 x 32 x 8 voxels."""
    volume, _ = make_brain_phantom(1, size=32, n_slices=8, lesions=lesions, skull=True, random_state=seed)
    return nib.Nifti1Image((200 * volume[0].T[:, ::-1]).astype(np.uint8), _AFFINE)


def make_model() -> ScanDetector:
    """Fit networks of a few thousand weights for some steps: enough that every part of the maps is there."""
    small = {
        "tokenizer": {"n_codes": 32, "code_dim": 8, "channels": 8},
        "evidence": {"channels": 8, "depth": 2},
        "detector": {"width": 16, "depth": 2, "n_painted": 2},
        "inpainter": {"width": 32, "depth": 2, "n_heads": 2},
    }
    pipeline = make_mimood_pipeline(preset="tiny", random_state=0, memory=None, device="cpu")
    for step, parameters in small.items():
        pipeline.named_steps[step].set_params(
            **parameters, training__max_iter=60, training__warmup_iter=5, training__precision="float32"
        )
    return ScanDetector(pipeline, size=32, scan_fpr=0.5).fit([scan(seed) for seed in range(6)])


def main() -> None:
    """Write model, scans and maps into the folder of this version."""
    folder, detector = MODEL.parent, make_model()
    detector.save(MODEL)
    for name, image in {"healthy": scan(10), "lesion": scan(11, lesions="bright")}.items():
        write_image(image, folder / f"{name}.nii.gz")
        result = detector.detect_scan(image)
        write_image(result.anomaly, folder / f"{name}_anomaly.nii.gz")
        write_image(result.pvalues, folder / f"{name}_pvalue.nii.gz")
        scores = {"score": result.score, "pvalue": result.pvalue}
        (folder / f"{name}.json").write_text(json.dumps(scores) + "\n")
        print(f"{name}: score {result.score:.4f}, p {result.pvalue:.3g}, {result.flags or 'no remarks'}")


if __name__ == "__main__":
    main()
