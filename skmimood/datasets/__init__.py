"""Brain phantoms with exact lesion masks, made without a download."""

from skmimood.datasets.layouts import PhantomDataset, write_phantom_dataset
from skmimood.datasets.lesions import LESION_KINDS
from skmimood.datasets.phantom import make_brain_phantom

__all__ = ["LESION_KINDS", "PhantomDataset", "make_brain_phantom", "write_phantom_dataset"]
