"""Training data: reading records, preprocessing, targets, and the pipeline of them."""

from deeplab2_edge.train.data.pipeline import (
    Share,
    evaluation_dataset,
    training_dataset,
)
from deeplab2_edge.train.data.samples import SampleSettings
from deeplab2_edge.train.data.traced_checks import readable_errors

__all__ = [
    "SampleSettings",
    "Share",
    "evaluation_dataset",
    "readable_errors",
    "training_dataset",
]
