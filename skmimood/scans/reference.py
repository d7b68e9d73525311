"""From the maps of healthy scans to what new scans are compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from skmimood.maps.conformal import HealthyReference
from skmimood.scans.mapping import ScanMaps

CLUSTER_FPR = 0.01  # of healthy pixels: what is higher forms clusters


@dataclass(frozen=True, eq=False)
class HealthyScan:
    """What is kept of the map of a healthy scan.

    ``group`` says whose scan it is, ``pixels`` holds the scores of its pixels, and ``mass`` is its `cluster_mass` as a
    function of the threshold.
    """

    group: str
    pixels: HealthyReference
    mass: Callable[[float], float]

    @classmethod
    def of(cls, maps: ScanMaps, group: str) -> HealthyScan:
        """Keep what matters of the maps of a scan; `InputError` if none of its pixels is scored."""
        return cls(group, HealthyReference.from_scans([(maps.values, 0.0)]), maps.mass())

    def score(self, reference: HealthyReference) -> float:
        """Return the score of this scan as a whole."""
        return self.mass(reference.pixel_threshold(CLUSTER_FPR))


def refer(scans: Mapping[str, HealthyScan]) -> tuple[HealthyReference, dict[str, float]]:
    """Return the reference that healthy scans make, and the score of each.

    Of each group the highest score counts. A scan is compared with pixels of the other groups, as a new one will be:
    its own would hide what is high in it, and p-values of new scans would be too small. `InputError` if there is none.
    """
    groups: dict[str, dict[str, HealthyScan]] = {}
    for name, scan in scans.items():
        groups.setdefault(scan.group, {})[name] = scan
    reference = HealthyReference.pooled([scan.pixels for scan in scans.values()])
    scores: dict[str, float] = {}
    highest = []
    for of_group in groups.values():
        own = HealthyReference.pooled([scan.pixels for scan in of_group.values()])
        others = reference.without(own) if len(groups) > 1 else reference
        found = {name: scan.score(others) for name, scan in of_group.items()}
        scores |= found
        highest.append(max(found.values()))
    return replace(reference, scan_scores=np.sort(highest)), scores
