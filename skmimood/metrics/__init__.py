"""How well anomaly maps find lesions, pixel by pixel, token by token and lesion by lesion.

Here belong functions of labels and scores, and scorers made of them; they need neither torch nor nibabel. Higher scores
are more anomalous everywhere, and pixels are pooled over all images that are passed. Thresholds and p-values from
healthy scans belong to `skmimood.maps`.
"""

from skmimood.metrics.lesions import LesionDetection, lesion_detection
from skmimood.metrics.pixels import (
    auroc,
    average_precision,
    best_dice,
    dice_at_threshold,
    false_positive_rate,
)
from skmimood.metrics.scorers import (
    pixel_auroc_scorer,
    pixel_average_precision_scorer,
    pixel_best_dice_scorer,
)
from skmimood.metrics.tokens import token_labels

__all__ = [
    "LesionDetection",
    "auroc",
    "average_precision",
    "best_dice",
    "dice_at_threshold",
    "false_positive_rate",
    "lesion_detection",
    "pixel_auroc_scorer",
    "pixel_average_precision_scorer",
    "pixel_best_dice_scorer",
    "token_labels",
]
