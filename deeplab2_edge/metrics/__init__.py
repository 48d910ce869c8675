"""Metrics of semantic and panoptic segmentation, accumulated image by image."""

from deeplab2_edge.metrics.evaluation import (
    EvaluationReport,
    evaluate_predictions,
    format_report,
)
from deeplab2_edge.metrics.mean_iou import MeanIou, MeanIouResult
from deeplab2_edge.metrics.panoptic_quality import (
    ClassQuality,
    PanopticQuality,
    PanopticQualityResult,
)

__all__ = [
    "ClassQuality",
    "EvaluationReport",
    "MeanIou",
    "MeanIouResult",
    "PanopticQuality",
    "PanopticQualityResult",
    "evaluate_predictions",
    "format_report",
]
