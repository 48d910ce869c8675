"""Runs converted models with NumPy, OpenCV and LiteRT or ONNX Runtime.

TensorFlow is not needed.

from deeplab2_edge.runtime import PanopticSegmenter

result = PanopticSegmenter("model.tflite")("street.jpg")
for segment in result.segments:
    print(segment.class_name, segment.score, segment.box_xyxy)
result.save("results", "street")
"""

from deeplab2_edge.runtime.clips import TrackingSegmenter, VideoSession
from deeplab2_edge.runtime.engine import Engine, open_engine
from deeplab2_edge.runtime.results import PanopticResult
from deeplab2_edge.runtime.segmenter import PanopticSegmenter
from deeplab2_edge.runtime.segments import Segment

__all__ = [
    "Engine",
    "PanopticResult",
    "PanopticSegmenter",
    "Segment",
    "TrackingSegmenter",
    "VideoSession",
    "open_engine",
]
