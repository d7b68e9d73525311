"""How well anomaly maps find lesions, pixel by pixel, token by token and lesion by lesion.

Higher scores are more anomalous everywhere. Pixels are pooled over all images that are passed.
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
