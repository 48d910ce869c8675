"""Which ops of an int8 file stay in float32: the rules of `int8-mixed`.

Three kinds of parts lose too much in 8 bits, or gain nothing.

* Attention, and the product of mask features with pixel features: logits are not
  scaled, a softmax over more than 256 keys gives less than one step of 1/256 each, and
  XNNPACK has no int8 kernels for BATCH_MATMUL and SOFTMAX, so that int8 attention runs
  several times slower than float.
* The switch of switchable atrous convolution, which is not bounded, and its average
  pool, which XNNPACK has in float only.
* The last layer of heads whose values are distances: centers, offsets of all kinds,
  depth. Far offsets share 256 steps with near ones. These layers are a thousandth of
  the work.

Where only moving and elementwise ops lie between two float parts, they are float too:
values change type once on the way into attention and once on the way out.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from deeplab2_edge import keys
from deeplab2_edge.convert.quantization.float_graph import WEIGHTED, FloatGraph

FLOAT_KINDS = frozenset({"BATCH_MATMUL", "SOFTMAX", "L2_NORMALIZATION"})
FLOAT_LAYERS = re.compile(r"/_switch(_mean)?$")
FLOAT_HEADS = frozenset(
    {
        keys.CENTER_HEATMAP,
        keys.OFFSET_MAP,
        keys.FRAME_OFFSET_MAP,
        keys.NEXT_OFFSET_MAP,
        keys.DEPTH_PRED,
        keys.TRANSFORMER_CLASS_LOGITS,
        keys.PIXEL_SPACE_MASK_LOGITS,
    }
)


@dataclass(frozen=True)
class FloatPart:
    """Names the ops that are not quantized, the way the quantizer wants them.

    Attributes:
        ops: Places of the ops in the graph.
        names: Names of the ops.
        kinds: Kinds all of whose ops are meant. The quantizer does not find an op that
            has several outputs by its name.
    """

    ops: frozenset[int] = frozenset()
    names: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()


def fragile_ops(graph: FloatGraph) -> frozenset[int]:
    """Finds the ops that the rules keep in float32; gives their places."""
    found = {
        place
        for place, op in enumerate(graph.ops)
        if op.kind in FLOAT_KINDS or FLOAT_LAYERS.search(op.layer)
    }
    # The blend behind a switch is the only difference in these networks.
    if any(FLOAT_LAYERS.search(op.layer) for op in graph.ops):
        found |= {place for place, op in enumerate(graph.ops) if op.kind == "SUB"}
    for head, tensor in graph.heads.items():
        if head in FLOAT_HEADS:
            found |= _last_layer(graph, tensor)
    return frozenset(found)


def ops_of_layers(graph: FloatGraph, layers: Iterable[str]) -> frozenset[int]:
    """Finds the ops of layers and of all below them; gives their places."""
    wanted = tuple(layers)
    return frozenset(
        place
        for place, op in enumerate(graph.ops)
        if any(op.layer == w or op.layer.startswith(w + "/") for w in wanted)
    )


def float_part(
    graph: FloatGraph, ops: Collection[int], *, fill_gaps: bool = True
) -> FloatPart:
    """Names the ops kept in float32, and adds what lies between them.

    Args:
        graph: The graph.
        ops: Places of the ops.
        fill_gaps: Whether to add anything.
    """
    whole = _fill_gaps(graph, set(ops)) if fill_gaps else set(ops)
    kinds = {graph.ops[place].kind for place in whole}
    several = {op.kind for op in graph.ops if len(op.outputs) > 1}
    only_float = {
        kind
        for kind in kinds & several
        if all(p in whole for p, op in enumerate(graph.ops) if op.kind == kind)
    }
    return FloatPart(
        frozenset(whole),
        frozenset(graph.ops[place].name for place in whole),
        frozenset(only_float),
    )


def _last_layer(graph: FloatGraph, head: int) -> set[int]:
    """Finds the ops of a head from its last op with weights on."""
    found: set[int] = set()
    waiting = [head]
    while waiting:
        place = graph.producers.get(waiting.pop())
        if place is None or place in found:
            continue
        found.add(place)
        if graph.ops[place].kind not in WEIGHTED:
            waiting += graph.ops[place].inputs
    return found


def _fill_gaps(graph: FloatGraph, kept: set[int]) -> set[int]:
    """Adds ops without weights all of whose users, or all of whose sources, are kept.

    Ops with weights are added if both are: a table of positions in attention.
    """
    if not kept:
        return kept
    heads = set(graph.heads.values())
    has_grown = True
    while has_grown:
        has_grown = False
        for place, op in enumerate(graph.ops):
            if place in kept:
                continue
            users = [u for t in op.outputs for u in graph.consumers.get(t, ())]
            sources = [graph.producers.get(t) for t in op.inputs]
            feeds_kept = (
                bool(users)
                and all(u in kept for u in users)
                and not heads.intersection(op.outputs)
            )
            takes_kept = bool(sources) and all(s in kept for s in sources)
            if op.kind in WEIGHTED:
                is_inside = feeds_kept and takes_kept
            else:
                is_inside = feeds_kept or takes_kept
            if is_inside:
                kept.add(place)
                has_grown = True
    return kept
