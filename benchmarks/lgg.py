"""Real tumours: fit on the tumour-free slices of the training patients of lgg/, score the patients of another split."""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np
from scipy.ndimage import binary_erosion

from benchmarks import records

_EROSION = 14  # pixels of 0.94 mm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", help="folder that holds lgg/ (default: $SKMIMOOD_DATA, else ../shared/data)"
    )
    parser.add_argument("--preset", default="tiny", choices=["tiny", "small", "paper"])
    parser.add_argument("--split", default="val", help="patients to score")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cache", help="folder that keeps trained networks from run to run")
    parser.add_argument(
        "--search", action="store_true", help="score a grid of lambda and T, and write no record"
    )


def run(arguments: argparse.Namespace) -> None:
    from skmimood import ScanDetector, make_mimood_pipeline
    from skmimood.pipeline import PRESET_IMAGE_SIZE

    folder = records.data_root(arguments.root) / "lgg"
    training = [folder / name / f"{name}_flair.nii.gz" for name in records.subjects(folder, "train")]
    pipeline = make_mimood_pipeline(
        arguments.preset, random_state=arguments.seed, device=arguments.device,
        memory=arguments.cache or "session", verbose=True,
    )  # fmt: skip
    detector = ScanDetector(
        pipeline,
        modality="flair",
        size=PRESET_IMAGE_SIZE[arguments.preset],
        random_state=arguments.seed,
        verbose=True,
    )
    start = time.perf_counter()
    detector.fit(training, "_seg")
    fit = "fit_with_cached_networks" if arguments.cache else "fit"
    seconds = {fit: round(time.perf_counter() - start, 1)}
    patients = records.subjects(folder, arguments.split)
    if arguments.search:
        _search(detector, folder, patients)
        return
    start = time.perf_counter()
    scores = _score(detector, folder, patients)
    seconds["score"] = round(time.perf_counter() - start, 1)
    name = f"lgg_{arguments.preset}_{arguments.split}_seed{arguments.seed}"
    protocol = {
        "data": "lgg (TCGA-LGG FLAIR, Buda et al. 2019)",
        "protocol": "fit on tumour-free slices of the training patients; pixels of all tumour slices of the scored "
        "patients pooled, at native resolution; best Dice takes its threshold from the scored pixels",
        "preset": arguments.preset, "seed": arguments.seed, "split": arguments.split, "n_patients": len(patients),
    }  # fmt: skip
    inference = ("detector__threshold", "inpainter__n_steps", "inpainter__n_restorations")
    fitted = {
        **{name: detector.pipeline_.get_params()[name] for name in inference},
        "training_steps": [step.n_iter_ for _, step in detector.pipeline_.steps],
        "n_training_scans": detector.n_scans_,
        "n_training_slices": detector.n_slices_,
    }
    records.write(name, {**protocol, **fitted, **scores, "seconds": seconds}, arguments.device)


def _score(detector: Any, folder: Any, patients: list[str]) -> dict[str, Any]:
    """Score every tumour slice of ``patients`` by MIM-OOD and by plain intensity, on the same pixels."""
    from skmimood.nifti import read_labels, read_scan
    from skmimood.preprocessing import foreground_mask, scale_intensity

    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("truth", "interior", "mimood", "intensity")}
    alarms = []
    for name in patients:
        path = folder / name / f"{name}_flair.nii.gz"
        scan = read_scan(path)
        lesion = read_labels(folder / name / f"{name}_seg.nii.gz", scan)
        anomaly = np.asarray(detector.detect_scan(path).anomaly.dataobj)
        head = foreground_mask(scan.data)
        has_tumour = lesion.any((0, 1))
        arrays = {
            "truth": lesion,
            "interior": binary_erosion(head, np.ones((3, 3, 1)), iterations=_EROSION),
            "mimood": anomaly,
            "intensity": scale_intensity(scan.data, head) * head,
        }
        for key, array in arrays.items():
            parts[key].append(array[..., has_tumour].ravel())
        alarms.append((anomaly[head & ~has_tumour] > detector.pixel_threshold_).mean())
    pooled = {key: np.concatenate(arrays) for key, arrays in parts.items()}
    truth, interior = pooled["truth"], pooled["interior"]
    threshold = detector.pixel_threshold_
    return {
        "tumour_slices": truth.size // (256 * 256),
        "base_rate": round(float(truth.mean()), 4),
        "mimood": _figures(truth, pooled["mimood"], threshold),
        "intensity": _figures(truth, pooled["intensity"]),
        # The scalp is bright in FLAIR and hard to reconstruct: scores within 13 mm of the head's surface set to 0.
        "mimood_head_interior": _figures(truth, pooled["mimood"] * interior, threshold),
        "intensity_head_interior": _figures(truth, pooled["intensity"] * interior),
        "false_positive_rate_on_tumour_free_slices": round(float(np.mean(alarms)), 4),
    }


def _figures(truth: np.ndarray, scores: np.ndarray, threshold: float | None = None) -> dict[str, float]:
    from skmimood import metrics

    figures = {
        "best_dice": metrics.best_dice(truth, scores),
        "ap": metrics.average_precision(truth, scores),
        "auroc": metrics.auroc(truth, scores),
    }
    if threshold is not None:
        figures["dice_at_healthy_threshold"] = metrics.dice_at_threshold(truth, scores, threshold)
    return {name: round(float(value), 4) for name, value in figures.items()}


def _search(detector: Any, folder: Any, patients: list[str]) -> None:
    """Print best Dice, AP and AUROC of a grid of lambda and T; thresholds are not calibrated for each."""
    for threshold in (0.0012, 0.002, 0.005, 0.02, 0.1):
        for n_steps in (4, 8):
            detector.pipeline_.set_params(detector__threshold=threshold, inpainter__n_steps=n_steps)
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the calibration belongs to other parameters
                scores = _score(detector, folder, patients)
            figures = {key: scores[key] for key in ("mimood", "mimood_head_interior")}
            print(threshold, n_steps, figures, f"{time.perf_counter() - start:.0f} s", flush=True)
