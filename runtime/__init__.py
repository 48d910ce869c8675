"""Runs converted models with NumPy, OpenCV and LiteRT or ONNX Runtime.

TensorFlow is not needed. Public names are resolved on first use, so that each loads
only what it needs.

from deeplab2_edge.runtime import PanopticSegmenter

result = PanopticSegmenter("model.tflite")("street.jpg")
for segment in result.segments:
    print(segment.class_name, segment.score, segment.box_xyxy)
result.save("results", "street")
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deeplab2_edge.runtime.clips import TrackingSegmenter, VideoSession
    from deeplab2_edge.runtime.engine import Engine, open_engine
    from deeplab2_edge.runtime.engine_report import EngineReport
    from deeplab2_edge.runtime.pipeline import FramePipeline
    from deeplab2_edge.runtime.results import PanopticResult
    from deeplab2_edge.runtime.sandbox import SandboxEngine, SandboxLimits
    from deeplab2_edge.runtime.segmenter import PanopticSegmenter
    from deeplab2_edge.runtime.segments import Segment
    from deeplab2_edge.runtime.serve import LiveView
    from deeplab2_edge.runtime.sources import (
        Frame,
        Source,
        SourceOptions,
        open_sources,
    )
    from deeplab2_edge.runtime.tracking import TrackingOptions

_PUBLIC = {
    "Engine": "engine",
    "EngineReport": "engine_report",
    "Frame": "sources",
    "FramePipeline": "pipeline",
    "LiveView": "serve",
    "PanopticResult": "results",
    "PanopticSegmenter": "segmenter",
    "SandboxEngine": "sandbox",
    "SandboxLimits": "sandbox",
    "Segment": "segments",
    "Source": "sources",
    "SourceOptions": "sources",
    "TrackingOptions": "tracking",
    "TrackingSegmenter": "clips",
    "VideoSession": "clips",
    "open_engine": "engine",
    "open_sources": "sources",
}

__all__ = [
    "Engine",
    "EngineReport",
    "Frame",
    "FramePipeline",
    "LiveView",
    "PanopticResult",
    "PanopticSegmenter",
    "SandboxEngine",
    "SandboxLimits",
    "Segment",
    "Source",
    "SourceOptions",
    "TrackingOptions",
    "TrackingSegmenter",
    "VideoSession",
    "open_engine",
    "open_sources",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'deeplab2_edge.runtime' has no attribute {name}")
    module = importlib.import_module(f"deeplab2_edge.runtime.{_PUBLIC[name]}")
    return getattr(module, name)
