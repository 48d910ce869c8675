"""What devices make of a network, told before it runs on them.

`check_graph` judges every op of any TFLite file by the rules of a target: kernels of
XNNPACK (`cpu`), the GPU delegate of TFLite (`gpu`), the Coral Edge TPU (`edgetpu`). No
TensorFlow and no interpreter take part, so files that nobody vouches for can be read.
"""

from collections.abc import Callable, Mapping

from deeplab2_edge.errors import UsageError
from deeplab2_edge.targets.compiler_log import (
    CompilerLog,
    compare,
    parse_compiler_log,
    read_compiler_log,
)
from deeplab2_edge.targets.cpu import check_cpu
from deeplab2_edge.targets.edge_tpu import check_edge_tpu
from deeplab2_edge.targets.gpu import check_gpu
from deeplab2_edge.targets.verdict import Check, JudgedOp, Judgement, Verdict
from deeplab2_edge.tflite_file.graph import Graph, Op, Tensor, read_graph

__all__ = [
    "CHECKED_TARGETS",
    "Check",
    "CompilerLog",
    "Graph",
    "JudgedOp",
    "Judgement",
    "Op",
    "Tensor",
    "Verdict",
    "check_graph",
    "compare",
    "parse_compiler_log",
    "read_compiler_log",
    "read_graph",
]

_CHECKS: Mapping[str, Callable[[Graph], Check]] = {
    "cpu": check_cpu,
    "gpu": check_gpu,
    "edgetpu": check_edge_tpu,
}
CHECKED_TARGETS = tuple(_CHECKS)


def check_graph(graph: Graph | bytes, target: str) -> Check:
    """Predicts which ops of a network run on a target.

    Args:
        graph: What `read_graph` gives, or a whole TFLite file.
        target: One of `CHECKED_TARGETS`.

    Raises:
        ModelFileError: If the file is damaged.
        UsageError: If nothing is known of the target.
    """
    if target not in _CHECKS:
        raise UsageError(
            f"target is {target!r}; must be one of {', '.join(CHECKED_TARGETS)}"
        )
    return _CHECKS[target](read_graph(graph) if isinstance(graph, bytes) else graph)
