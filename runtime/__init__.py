"""Runs converted models with NumPy, OpenCV and LiteRT; TensorFlow is not needed.

from deeplab2_edge.runtime import PanopticSegmenter

result = PanopticSegmenter("model.tflite")("street.jpg")
for segment in result.segments:
    print(segment.class_name, segment.score, segment.box_xyxy)
result.save("results", "street")
"""

from deeplab2_edge.runtime.interpreter import LiteRtEngine
from deeplab2_edge.runtime.results import PanopticResult
from deeplab2_edge.runtime.segmenter import Engine, PanopticSegmenter
from deeplab2_edge.runtime.segments import Segment

__all__ = ["Engine", "LiteRtEngine", "PanopticResult", "PanopticSegmenter", "Segment"]
