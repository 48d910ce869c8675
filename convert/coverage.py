"""What a target takes of a network: refused before, or told after a conversion."""

import os

from deeplab2_edge.config.schema import BackboneOptions
from deeplab2_edge.convert.forms import CPU, EDGE_TPU
from deeplab2_edge.errors import UsageError
from deeplab2_edge.model_file import TFLITE, format_of
from deeplab2_edge.targets import CHECKED_TARGETS, check_graph
from deeplab2_edge.targets.report import NAMES
from deeplab2_edge.wording import counted


def check_network(backbone: BackboneOptions, target: str) -> None:
    """Refuses a network of which next to nothing would run on a target.

    Raises:
        UsageError: If attention is to run on the Edge TPU; the message names a network
            that does.
    """
    name = backbone.name.lower()
    if target == EDGE_TPU and name.startswith(("axial_", "max_deeplab")):
        raise UsageError(
            f"--target {target}: the attention of {name} does not map to the Edge TPU; "
            "train mobilenet_v3_small_minimalistic, of which every op does, or give "
            f"--target {CPU}"
        )


def coverage_notes(
    graph: bytes, target: str, path: str | os.PathLike[str]
) -> tuple[str, ...]:
    """Says what of a graph its target does not take.

    Args:
        graph: A TFLite flatbuffer, or an ONNX model, of which nothing is known.
        target: One of `forms.TARGETS`.
        path: Of the file, for the command that tells more.

    Returns:
        One note, none if the target takes everything between the ends of the graph.
    """
    if target not in CHECKED_TARGETS or format_of(graph) != TFLITE:
        return ()
    check = check_graph(graph, target)
    more = f"; more: deeplab2-edge inspect --target {target} {path}"
    name = NAMES[target]
    if not check.is_clean:
        first = check.findings[0]
        if check.first_cut is not None:
            first = check.ops[check.first_cut]
        elif check.inner_findings:
            first = check.inner_findings[0]
        return (
            f"{check.mapped_share:.0%} of the work maps to {name}; first "
            f"{first.op.name} does not ({first.judgement.reason}){more}",
        )
    if check.num_unknown:
        first = next(iter(check.findings))
        return (
            f"{counted(check.num_unknown, 'op')} may not map to {name}, first "
            f"{first.op.name} ({first.judgement.reason}){more}",
        )
    return ()
