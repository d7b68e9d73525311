"""From volumes to slices on the network's grid and back: foreground, intensities, geometry."""

from skmimood.preprocessing.grid import GridPlan, Plane, in_plane_extent
from skmimood.preprocessing.intensity import foreground_mask, scale_intensity

__all__ = ["GridPlan", "Plane", "foreground_mask", "in_plane_extent", "scale_intensity"]
