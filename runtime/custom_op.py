"""The custom op that merges inside a TFLite file, and the file without it.

The op stands last in the graph and its maps are outputs beside the heads. So where no
library brings the op, it is cut off: the operators of the graph become one fewer and
the outputs those that are left. Nothing else of the file changes.
"""

import struct

from deeplab2_edge import keys
from deeplab2_edge.errors import ModelFileError
from deeplab2_edge.model_file import ModelMetadata, OutputSpec
from deeplab2_edge.panoptic import MergeSettings

OP_NAME = "DeepLabEdgePanopticMerge"
# What the op reads and gives, in its order.
OP_INPUTS = (keys.SEMANTIC_LOGITS, keys.CENTER_HEATMAP, keys.OFFSET_MAP)
OP_OUTPUTS = (
    keys.PANOPTIC_PRED,
    keys.SEMANTIC_PRED,
    keys.INSTANCE_PRED,
    keys.INSTANCE_SCORES,
    keys.INSTANCE_CENTERS,
    keys.INSTANCE_CENTER_SCORES,
)

_OPTIONS_VERSION = 1
# Numbers of fields in schema.fbs of TFLite.
_MODEL_CODES, _MODEL_GRAPHS, _MODEL_SIGNATURES = 1, 2, 7
_GRAPH_OUTPUTS, _GRAPH_OPERATORS = 2, 3
_OPERATOR_CODE, _OPERATOR_OUTPUTS = 0, 2
_CODE_NAME = 1


def op_outputs(metadata: ModelMetadata) -> tuple[OutputSpec, ...]:
    """Describes the maps that the op gives."""
    assert metadata.merge is not None
    count = metadata.merge.keep_k_centers
    shapes = {
        keys.INSTANCE_CENTERS: (count, 2),
        keys.INSTANCE_CENTER_SCORES: (count,),
    }
    return tuple(
        OutputSpec(name, shapes.get(name, metadata.canvas)) for name in OP_OUTPUTS
    )


def pack_options(settings: MergeSettings) -> bytes:
    """Writes the settings as the op reads them; see `native/tflite_delegate.cpp`."""
    return struct.pack(
        f"<7if{len(settings.thing_ids)}i",
        _OPTIONS_VERSION,
        settings.label_divisor,
        settings.ignore_label,
        settings.nms_kernel,
        settings.keep_k_centers,
        settings.stuff_area_limit,
        settings.merge_plateaus,
        settings.center_score_threshold,
        *settings.thing_ids,
    )


def without_custom_op(graph: bytes) -> bytes:
    """Cuts the merge off a graph, which then gives heads alone.

    Args:
        graph: A TFLite flatbuffer whose last operator is the custom op.

    Raises:
        ModelFileError: If it is not, or the graph is damaged.
    """
    content = bytearray(graph)
    try:
        _cut(content)
    except (struct.error, IndexError):
        raise ModelFileError("damaged: offsets lead out of the graph") from None
    return bytes(content)


def _cut(content: bytearray) -> None:
    model = _follow(content, 0)
    main = _follow(content, _vector(content, model, _MODEL_GRAPHS) + 4)
    operators = _vector(content, main, _GRAPH_OPERATORS)
    count = _number(content, operators)
    last = _follow(content, operators + 4 * count)
    codes = _vector(content, model, _MODEL_CODES)
    place = _field(content, last, _OPERATOR_CODE)
    index = _number(content, place) if place else 0
    if not count or index >= _number(content, codes):
        raise ModelFileError(f"no {OP_NAME} at the end of the graph")
    code = _follow(content, codes + 4 + 4 * index)
    if _text(content, code, _CODE_NAME) != OP_NAME.encode():
        raise ModelFileError(f"no {OP_NAME} at the end of the graph")

    made = set(_integers(content, _vector(content, last, _OPERATOR_OUTPUTS)))
    outputs = _vector(content, main, _GRAPH_OUTPUTS)
    kept = [i for i in _integers(content, outputs) if i not in made]
    struct.pack_into(f"<I{len(kept)}i", content, outputs, len(kept), *kept)
    struct.pack_into("<I", content, operators, count - 1)
    # Signatures name outputs that are gone; without any the graph has its tensors.
    if _field(content, model, _MODEL_SIGNATURES):
        struct.pack_into("<I", content, _vector(content, model, _MODEL_SIGNATURES), 0)


def _number(content: bytearray, position: int) -> int:
    (value,) = struct.unpack_from("<I", content, position)
    return int(value)


def _follow(content: bytearray, position: int) -> int:
    """Gives where the table or vector is to which an offset leads."""
    target = position + _number(content, position)
    if target >= len(content):
        raise IndexError
    return target


def _field(content: bytearray, table: int, number: int) -> int:
    """Gives where a field of a table is, 0 if it has its default."""
    (back,) = struct.unpack_from("<i", content, table)
    vtable = table - back
    if not 0 <= vtable < len(content):
        raise IndexError
    (size,) = struct.unpack_from("<H", content, vtable)
    slot = 4 + 2 * number
    if slot >= size:
        return 0
    (offset,) = struct.unpack_from("<H", content, vtable + slot)
    return table + offset if offset else 0


def _vector(content: bytearray, table: int, number: int) -> int:
    place = _field(content, table, number)
    if not place:
        raise IndexError
    return _follow(content, place)


def _integers(content: bytearray, vector: int) -> tuple[int, ...]:
    count = _number(content, vector)
    if vector + 4 + 4 * count > len(content):
        raise IndexError
    return struct.unpack_from(f"<{count}i", content, vector + 4)


def _text(content: bytearray, table: int, number: int) -> bytes:
    place = _field(content, table, number)
    if not place:
        return b""
    start = _follow(content, place)
    return bytes(content[start + 4 : start + 4 + _number(content, start)])
