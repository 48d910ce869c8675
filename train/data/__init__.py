"""Training data: reading records, preprocessing, targets, and the pipeline of them."""

from deeplab2_edge.train.data.pipeline import evaluation_dataset, training_dataset
from deeplab2_edge.train.data.targets import TargetSettings, make_targets

__all__ = [
    "TargetSettings",
    "evaluation_dataset",
    "make_targets",
    "training_dataset",
]
