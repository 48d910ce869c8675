"""deeplab2-edge: panoptic segmentation from server training to small devices.

Importing this package loads nothing heavy; public names are resolved on first use.
"""

import importlib
from typing import Any

from deeplab2_edge.version import __version__

_PUBLIC = {
    "DatasetInfo": "deeplab2_edge.datasets.registry",
    "DeepLabEdgeError": "deeplab2_edge.errors",
    "PanopticResult": "deeplab2_edge.runtime.results",
    "PanopticSegmenter": "deeplab2_edge.runtime.segmenter",
    "get_dataset": "deeplab2_edge.datasets.registry",
    "load_config": "deeplab2_edge.config",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'deeplab2_edge' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
