"""What lies on disk under the name of a checkpoint, read without TensorFlow.

    contents = read_contents("downloads/resnet50_os32.tar.gz")
    identify(contents.shapes).encoder

Values of variables are read by `deeplab2_edge.checkpoints`.
"""

from deeplab2_edge.checkpoint_files.contents import (
    CheckpointContents,
    StoredVariable,
    read_contents,
)
from deeplab2_edge.checkpoint_files.diagnosis import Identity, explain, identify
from deeplab2_edge.checkpoint_files.location import (
    CheckpointLocation,
    find_checkpoint,
    resolve_checkpoint,
)
from deeplab2_edge.checkpoint_files.surgery import keep_classes, widen_first_layer

__all__ = [
    "CheckpointContents",
    "CheckpointLocation",
    "Identity",
    "StoredVariable",
    "explain",
    "find_checkpoint",
    "identify",
    "keep_classes",
    "read_contents",
    "resolve_checkpoint",
    "widen_first_layer",
]
