"""Metrics of semantic, panoptic, video and depth-aware segmentation.

Every metric is an accumulator: `update` takes one image or frame, `merge` adds what
another worker has counted, `result` gives the figures as fractions.
"""

from deeplab2_edge.metrics.average_precision import (
    AveragePrecision,
    AveragePrecisionResult,
    ClassPrecision,
    segment_scores,
)
from deeplab2_edge.metrics.collection import (
    DEPTH_METRICS,
    METRICS,
    PAIR_METRIC,
    VIDEO_METRICS,
    Frame,
    MetricReport,
    MetricSet,
    check_names,
)
from deeplab2_edge.metrics.depth import DepthError, DepthResult
from deeplab2_edge.metrics.evaluation import (
    EvaluationReport,
    evaluate_predictions,
    format_report,
)
from deeplab2_edge.metrics.flicker import FlickerFigures, FlickerRate, FlickerResult
from deeplab2_edge.metrics.folders import convert_folder, evaluate_folders
from deeplab2_edge.metrics.identity import (
    IdentityFigures,
    IdentityQuality,
    IdentityResult,
)
from deeplab2_edge.metrics.mean_iou import MeanIou, MeanIouResult
from deeplab2_edge.metrics.official import (
    OFFICIAL_FORMATS,
    OfficialWriter,
    official_format,
)
from deeplab2_edge.metrics.overlaps import Overlaps, count_overlaps, join_overlaps
from deeplab2_edge.metrics.panoptic_quality import (
    ClassQuality,
    PanopticQuality,
    PanopticQualityResult,
)
from deeplab2_edge.metrics.tracking_quality import (
    DepthTrackingQuality,
    DepthTrackingQualityResult,
    SequenceQuality,
    TrackingQuality,
    TrackingQualityResult,
)
from deeplab2_edge.metrics.video_panoptic_quality import (
    VPQ_WINDOWS,
    DepthVideoPanopticQuality,
    DepthVideoPanopticQualityResult,
    VideoPanopticQuality,
    VideoPanopticQualityResult,
)

__all__ = [
    "DEPTH_METRICS",
    "METRICS",
    "OFFICIAL_FORMATS",
    "PAIR_METRIC",
    "VIDEO_METRICS",
    "VPQ_WINDOWS",
    "AveragePrecision",
    "AveragePrecisionResult",
    "ClassPrecision",
    "ClassQuality",
    "DepthError",
    "DepthResult",
    "DepthTrackingQuality",
    "DepthTrackingQualityResult",
    "DepthVideoPanopticQuality",
    "DepthVideoPanopticQualityResult",
    "EvaluationReport",
    "FlickerFigures",
    "FlickerRate",
    "FlickerResult",
    "Frame",
    "IdentityFigures",
    "IdentityQuality",
    "IdentityResult",
    "MeanIou",
    "MeanIouResult",
    "MetricReport",
    "MetricSet",
    "OfficialWriter",
    "Overlaps",
    "PanopticQuality",
    "PanopticQualityResult",
    "SequenceQuality",
    "TrackingQuality",
    "TrackingQualityResult",
    "VideoPanopticQuality",
    "VideoPanopticQualityResult",
    "check_names",
    "convert_folder",
    "count_overlaps",
    "evaluate_folders",
    "evaluate_predictions",
    "format_report",
    "join_overlaps",
    "official_format",
    "segment_scores",
]
