"""Makes of what tf2onnx writes a graph that runtimes load and quantize well.

Every pass keeps the values of the graph. They work on plain protobuf messages of the
onnx package, in place, and say in their docstring what they mend.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import ConversionError
from deeplab2_edge.optional import require

onnx: Any = require("onnx", extra="onnx")

# Constants up to here are shapes, axes and scales: shape inference looks into them.
_SMALL = 64
# Counters that tf2onnx adds to names; they depend on what ran before it.
_COUNTER = re.compile(r"__\d+")
# What Keras and TensorFlow put in front of a layer's name.
_WRAPPERS = re.compile(
    r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/|model(?:_\d+)?/|encoder/(?=encoder/))+"
)
# What constants are called, by op and place among its inputs.
_ROLES: Mapping[str, Mapping[int, str]] = {
    "Conv": {1: "kernel", 2: "bias"},
    "Gemm": {1: "kernel", 2: "bias"},
    "MatMul": {1: "kernel"},
    "Resize": {3: "sizes"},
    "Reshape": {1: "shape"},
    "Clip": {1: "lowest", 2: "highest"},
}
_LAYOUT_OPS = frozenset({"Transpose", "Reshape", "Identity"})


class Graph:
    """Gives a model's graph by name: constants, who makes and who takes a tensor.

    Attributes:
        model: The ONNX model; changed in place.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._constants: dict[str, Any] | None = None

    @property
    def nodes(self) -> Any:
        """Nodes in topological order."""
        return self.model.graph.node

    def constants(self) -> dict[str, Any]:
        """Initializers by name."""
        if self._constants is None:
            self._constants = {t.name: t for t in self.model.graph.initializer}
        return self._constants

    def makers(self) -> dict[str, Any]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.output}

    def uses(self) -> Counter[str]:
        """How often a tensor is taken, as output of the graph too."""
        counts = Counter(name for node in self.nodes for name in node.input)
        counts.update(output.name for output in self.model.graph.output)
        return counts

    def takers(self) -> dict[str, list[Any]]:
        """The nodes that take each tensor."""
        found: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def output_names(self) -> list[str]:
        """Names of the graph's outputs."""
        return [output.name for output in self.model.graph.output]

    def value(self, name: str) -> NDArray[Any] | None:
        """Value of a constant, None of anything else."""
        tensor = self.constants().get(name)
        return None if tensor is None else onnx.numpy_helper.to_array(tensor)

    def set_constant(self, name: str, value: NDArray[Any]) -> str:
        """Adds a constant or replaces it; returns its name."""
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
        present = self.constants().get(name)
        if present is not None:
            present.CopyFrom(tensor)
        else:
            self.model.graph.initializer.append(tensor)
        self.forget_constants()
        return name

    def forget_constants(self) -> None:
        """Must follow a change of the list of initializers or of their names."""
        self._constants = None

    def remove(self, nodes: Sequence[Any]) -> None:
        """Takes nodes out."""
        gone = {id(node) for node in nodes}
        kept = [node for node in self.nodes if id(node) not in gone]
        copies = [_copy(node) for node in kept]
        del self.nodes[:]
        self.nodes.extend(copies)

    def redirect(self, old: str, new: str) -> None:
        """Lets all that takes a tensor take another."""
        for node in self.nodes:
            for place, name in enumerate(node.input):
                if name == old:
                    node.input[place] = new


def attribute(node: Any, name: str, default: Any = None) -> Any:
    """Returns the value of a node's attribute."""
    for candidate in node.attribute:
        if candidate.name == name:
            return onnx.helper.get_attribute_value(candidate)
    return default


def tidy(model: Any, *, tensor_names: Mapping[str, str]) -> Any:
    """Applies all passes.

    Args:
        model: Of tf2onnx, with static shapes; changed in place.
        tensor_names: New names of inputs and outputs, by their present names.

    Returns:
        The model.

    Raises:
        ConversionError: If shapes cannot be found.
    """
    graph = Graph(model)
    set_resize_sizes(graph)
    remove_idle_layout_ops(graph)
    fold_batch_norms(graph)
    fold_padding(graph)
    fuse_hard_swish(graph)
    transpose_pixels_first(graph)
    rename_outputs_and_inputs(graph, tensor_names)
    share_constants(graph)
    order_by_outputs(graph)
    merge_equal_nodes(graph)
    cancel_transposes(graph)
    name_after_layers(graph)
    return model


def infer_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor; all are static.

    Raises:
        ConversionError: If some shape is contradictory or unknown.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for info in _inferred(model):
        kind = info.type.tensor_type
        dims = kind.shape.dim
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            shapes[info.name] = tuple(dim.dim_value for dim in dims)
    for node in model.graph.node:
        for name in node.output:
            if name and name not in shapes:
                raise ConversionError(
                    f"the shape of {name!r}, made by {node.op_type} {node.name!r}, "
                    "depends on the image; devices need static shapes"
                )
    return shapes


def infer_types(model: Any) -> dict[str, int]:
    """Returns the element type of every tensor, as `onnx.TensorProto` counts them."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    types.update(
        {info.name: info.type.tensor_type.elem_type for info in _inferred(model)}
    )
    return types


def _inferred(model: Any) -> list[Any]:
    """Infers types on a copy without the weights, which takes milliseconds."""
    bare = onnx.ModelProto()
    bare.ir_version = model.ir_version
    bare.opset_import.extend(model.opset_import)
    bare.graph.name = model.graph.name
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    for output in model.graph.output:
        bare.graph.output.add(name=output.name)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            bare.graph.initializer.append(tensor)
        else:
            bare.graph.input.append(
                onnx.helper.make_tensor_value_info(
                    tensor.name, tensor.data_type, tensor.dims
                )
            )
    try:
        inferred = onnx.shape_inference.infer_shapes(
            bare, strict_mode=True, data_prop=True
        ).graph
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())[:300]
        raise ConversionError(
            f"shapes of the ONNX graph contradict: {reason}"
        ) from None
    return [*inferred.input, *inferred.value_info, *inferred.output]


def set_resize_sizes(graph: Graph) -> None:
    """Gives every Resize its target in pixels.

    tf2onnx 1.17 writes float factors. 17 * (33 / 17) is below 33 in float32, and
    ONNX Runtime rounds down: the file does not load.
    """
    # What tf2onnx noted of shapes is wrong for the same reason.
    del graph.model.graph.value_info[:]
    for node in graph.nodes:
        if node.op_type != "Resize" or len(node.input) != 3:
            continue
        factors = graph.value(node.input[2])
        if factors is None:
            raise ConversionError(
                f"Resize {node.name!r} has a size that depends on the image; devices "
                "need static shapes"
            )
        shape = _shape_before(graph, node)
        sizes = np.rint(np.asarray(shape) * factors.astype(np.float64))
        name = graph.set_constant(f"{node.name}/sizes", sizes.astype(np.int64))
        source = node.input[0]
        del node.input[:]
        node.input.extend([source, "", "", name])


def remove_idle_layout_ops(graph: Graph) -> None:
    """Removes Reshape, Transpose and Identity that change nothing."""
    shapes = infer_shapes(graph.model)
    outputs = set(graph.output_names())
    gone = []
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
        source, result = (node.input[0], node.output[0]) if node.input else ("", "")
        if (
            node.op_type in _LAYOUT_OPS
            and result not in outputs
            and shapes[source] == shapes[result]
            and (node.op_type != "Transpose" or _is_idle(node, shapes[source]))
        ):
            renamed[result] = source
            gone.append(node)
    graph.remove(gone)


def fold_batch_norms(graph: Graph) -> None:
    """Multiplies batch norms into the convolution before them.

    tf2onnx folds all but those behind a Reshape, which is gone by now.
    """
    gone = []
    makers, uses = graph.makers(), graph.uses()
    for node in graph.nodes:
        if node.op_type != "BatchNormalization":
            continue
        conv = makers.get(node.input[0])
        if conv is None or conv.op_type != "Conv" or uses[node.input[0]] != 1:
            continue
        kernel = graph.value(conv.input[1])
        scale, shift, mean, variance = (graph.value(n) for n in node.input[1:5])
        if kernel is None or scale is None or shift is None:
            continue
        if mean is None or variance is None:
            continue
        bias = graph.value(conv.input[2]) if len(conv.input) > 2 else 0.0
        if bias is None:
            continue
        factor = scale.astype(np.float64) / np.sqrt(
            variance.astype(np.float64) + attribute(node, "epsilon", 1e-5)
        )
        folded = kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))
        kernel_name = graph.set_constant(
            f"{node.name}/kernel", folded.astype(np.float32)
        )
        bias_name = graph.set_constant(
            f"{node.name}/bias", (shift + (bias - mean) * factor).astype(np.float32)
        )
        source = conv.input[0]
        del conv.input[:]
        conv.input.extend([source, kernel_name, bias_name])
        conv.output[0] = node.output[0]
        gone.append(node)
    graph.remove(gone)


def fold_padding(graph: Graph) -> None:
    """Lets convolutions pad themselves where a Pad with zeros stands before them."""
    makers = graph.makers()
    for node in graph.nodes:
        pad = makers.get(node.input[0]) if node.op_type == "Conv" else None
        if pad is None or pad.op_type != "Pad":
            continue
        amounts = graph.value(pad.input[1])
        fill = graph.value(pad.input[2]) if len(pad.input) > 2 else None
        if (
            amounts is None
            or attribute(pad, "mode", b"constant") != b"constant"
            or (fill is not None and np.any(fill))
            or attribute(node, "auto_pad", b"NOTSET") != b"NOTSET"
        ):
            continue
        before, after = np.split(amounts, 2)
        if before[:2].any() or after[:2].any():
            continue
        rank = len(before) - 2
        total = np.concatenate([before[2:], after[2:]]) + np.asarray(
            attribute(node, "pads", [0] * (2 * rank))
        )
        if (total < 0).any():
            continue
        for candidate in list(node.attribute):
            if candidate.name == "pads":
                node.attribute.remove(candidate)
        node.attribute.append(
            onnx.helper.make_attribute("pads", [int(amount) for amount in total])
        )
        node.input[0] = pad.input[0]
    remove_unused(graph)


def fuse_hard_swish(graph: Graph) -> None:
    """Writes `x * relu6(x + 3) / 6`, in whatever order, as HardSwish.

    One op can be recognized, and quantized as one: on the demo model this gives 2 dB
    of the offsets over an int8 sum and two int8 products, in the same time.
    """
    makers, takers = graph.makers(), graph.takers()
    for node in graph.nodes:
        if node.op_type != "Clip" or [_scalar(graph, n) for n in node.input[1:]] != [
            0.0,
            6.0,
        ]:
            continue
        source = _other_than(graph, makers.get(node.input[0]), "Add", 3.0)
        if source is None:
            continue
        for last in _products(takers, node.output[0], depth=2):
            factors = _factors(graph, makers, last)
            numbers = [f for f in factors if isinstance(f, float)]
            tensors = sorted(f for f in factors if isinstance(f, str))
            if tensors == sorted([source, node.output[0]]) and math.isclose(
                math.prod(numbers), 1 / 6, rel_tol=1e-6
            ):
                last.op_type = "HardSwish"
                del last.input[:]
                last.input.append(source)
                break
    remove_unused(graph)


def transpose_pixels_first(graph: Graph) -> None:
    """Moves the Transpose of an image in front of its cast and normalization.

    Bytes are moved then instead of floats, and it stands at the input alone.
    """
    images = {
        info.name
        for info in graph.model.graph.input
        if info.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    }
    makers, takers = graph.makers(), graph.takers()
    outputs = set(graph.output_names())
    for node in list(graph.nodes):
        if node.op_type != "Transpose":
            continue
        chain = []
        name = node.input[0]
        while name not in images and name in makers:
            maker = makers[name]
            values = [graph.value(other) for other in maker.input[1:]]
            if (
                maker.op_type not in ("Cast", "Mul", "Add", "Sub", "Div")
                or any(value is None or value.size != 1 for value in values)
                or len(takers[name]) != 1
                or name in outputs
            ):
                break
            chain.append(maker)
            name = maker.input[0]
        if name not in images or not chain or len(takers[name]) != 1:
            continue
        # image -> cast -> ... -> transpose  becomes  image -> transpose -> cast -> ...
        result = node.output[0]
        node.output[0] = f"{name}/transposed"
        node.input[0] = name
        chain[-1].input[0] = node.output[0]
        chain[0].output[0] = result
        order = [node, *reversed(chain)]
        chosen = {id(n) for n in order}
        rest = [n for n in graph.nodes if id(n) not in chosen]
        copies = [_copy(n) for n in (*order, *rest)]
        del graph.nodes[:]
        graph.nodes.extend(copies)
        makers, takers = graph.makers(), graph.takers()


def rename_outputs_and_inputs(graph: Graph, names: Mapping[str, str]) -> None:
    """Gives inputs and outputs of the graph their own names, and states shapes."""
    shapes = infer_shapes(graph.model)
    for node in graph.nodes:
        for tensors in (node.input, node.output):
            for place, name in enumerate(tensors):
                tensors[place] = names.get(name, name)
    for info in (*graph.model.graph.input, *graph.model.graph.output):
        shape, kind = shapes[info.name], info.type.tensor_type.elem_type
        info.CopyFrom(
            onnx.helper.make_tensor_value_info(
                names.get(info.name, info.name), kind, shape
            )
        )


def order_by_outputs(graph: Graph) -> None:
    """Orders nodes by what the outputs need, whatever order they came in."""
    makers = graph.makers()
    ordered: list[Any] = []
    done: set[int] = set()
    for output in sorted(graph.output_names()):
        # (node, whether its inputs have been seen to)
        waiting = [(makers[output], False)] if output in makers else []
        while waiting:
            node, is_ready = waiting.pop()
            if id(node) in done:
                continue
            if is_ready:
                done.add(id(node))
                ordered.append(node)
                continue
            waiting.append((node, True))
            waiting.extend(
                (makers[name], False) for name in reversed(node.input) if name in makers
            )
    copies = [_copy(node) for node in ordered]
    del graph.nodes[:]
    graph.nodes.extend(copies)
    infos = graph.model.graph.output
    in_order = sorted((_copy(info) for info in infos), key=lambda info: str(info.name))
    del infos[:]
    infos.extend(in_order)


def name_after_layers(graph: Graph) -> None:
    """Names nodes and tensors after layers, and orders constants by their use.

    The names of tf2onnx hold counters that depend on what it converted before. Here a
    node is called after the layer it came from, a tensor and a constant after their
    node; what would clash is numbered in the order of the graph.
    """
    given = _layer_names(graph)
    prefix = _common_prefix(given)
    fixed = {info.name for info in graph.model.graph.input} | set(graph.output_names())
    taken = Counter(fixed)
    names = {name: name for name in fixed}

    def unique(wish: str) -> str:
        taken[wish] += 1
        return wish if taken[wish] == 1 else unique(f"{wish}_{taken[wish] - 1}")

    constants = graph.constants()
    in_order = []
    for node, name in zip(graph.nodes, given, strict=True):
        node.name = unique(name.removeprefix(prefix) or node.op_type)
        for place, name in enumerate(node.input):
            if name in constants and name not in names:
                role = _ROLES.get(node.op_type, {}).get(place, f"constant{place}")
                names[name] = unique(f"{node.name}/{role}")
                in_order.append(constants[name])
            node.input[place] = names.get(name, name)
        for place, name in enumerate(node.output):
            if name and name not in names:
                names[name] = unique(f"{node.name}:{place}")
            node.output[place] = names.get(name, name)
    copies = []
    for tensor in in_order:
        copy = _copy(tensor)
        copy.name = names[tensor.name]
        copies.append(copy)
    del graph.model.graph.initializer[:]
    graph.model.graph.initializer.extend(copies)
    graph.forget_constants()


def merge_equal_nodes(graph: Graph) -> None:
    """Computes once what several nodes compute alike, and keeps the first of them.

    The pass of tf2onnx that does this keeps a different one in every run.
    """
    outputs = set(graph.output_names())
    first: dict[tuple[Any, ...], Any] = {}
    renamed: dict[str, str] = {}
    gone = []
    for node in graph.nodes:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
        attributes = sorted(a.SerializeToString() for a in node.attribute)
        key = (node.op_type, tuple(node.input), tuple(attributes), len(node.output))
        if key not in first:
            first[key] = node
        elif outputs.isdisjoint(node.output):
            renamed.update(zip(node.output, first[key].output, strict=True))
            gone.append(node)
    graph.remove(gone)


def cancel_transposes(graph: Graph) -> None:
    """Takes what a Transpose was made of where the next one undoes it."""
    makers = graph.makers()
    for node in graph.nodes:
        before = makers.get(node.input[0]) if node.op_type == "Transpose" else None
        if before is not None and before.op_type == "Transpose":
            first, second = attribute(before, "perm"), attribute(node, "perm")
            is_undone = [first[axis] for axis in second] == sorted(first)
            if is_undone and node.output[0] not in graph.output_names():
                graph.redirect(node.output[0], before.input[0])
    remove_unused(graph)


def share_constants(graph: Graph) -> None:
    """Stores equal constants once, and none that nobody takes."""
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in graph.constants().items():
        value = onnx.numpy_helper.to_array(tensor)
        key = (tensor.data_type, value.shape, value.tobytes())
        if key in first:
            graph.redirect(name, first[key])
        else:
            first[key] = name
    remove_unused(graph)


def remove_unused(graph: Graph) -> None:
    """Removes nodes and constants whose results nobody takes."""
    needed = set(graph.output_names())
    gone = []
    for node in reversed(graph.nodes):
        if needed.isdisjoint(node.output):
            gone.append(node)
        else:
            needed.update(node.input)
    if gone:
        graph.remove(gone)
    kept = [t for t in graph.model.graph.initializer if t.name in needed]
    if len(kept) != len(graph.model.graph.initializer):
        copies = [_copy(tensor) for tensor in kept]
        del graph.model.graph.initializer[:]
        graph.model.graph.initializer.extend(copies)
        graph.forget_constants()


def walk_back(graph: Graph, name: str, through: frozenset[str]) -> Iterator[Any]:
    """Gives the nodes before a tensor, from it on, as long as they are of some ops."""
    makers = graph.makers()
    while (node := makers.get(name)) is not None:
        yield node
        if node.op_type not in through:
            return
        name = node.input[0]


def _scalar(graph: Graph, name: str) -> float | None:
    value = graph.value(name)
    return float(value.reshape(())) if value is not None and value.size == 1 else None


def _other_than(graph: Graph, node: Any, op: str, constant: float) -> str | None:
    """Returns the tensor that a node combines with a certain constant."""
    if node is None or node.op_type != op:
        return None
    values = [_scalar(graph, name) for name in node.input]
    if values.count(constant) != 1:
        return None
    return str(node.input[1 - values.index(constant)])


def _products(
    takers: Mapping[str, list[Any]], name: str, *, depth: int
) -> Iterator[Any]:
    """Gives the products that a tensor enters, and those that these enter."""
    for node in takers.get(name, []):
        if node.op_type == "Mul":
            if depth > 1:
                yield from _products(takers, node.output[0], depth=depth - 1)
            yield node


def _factors(graph: Graph, makers: Mapping[str, Any], node: Any) -> list[str | float]:
    """Takes a product apart, and the products in it."""
    found: list[str | float] = []
    for name in node.input:
        value = _scalar(graph, name)
        maker = makers.get(name)
        if value is not None:
            found.append(value)
        elif maker is not None and maker.op_type == "Mul":
            parts = [_scalar(graph, n) for n in maker.input]
            found += [
                part if part is not None else str(n)
                for n, part in zip(maker.input, parts, strict=True)
            ]
        else:
            found.append(name)
    return found


def _shape_before(graph: Graph, node: Any) -> tuple[int, ...]:
    """Returns the shape of a node's input from the nodes that lead there alone."""
    makers = graph.makers()
    needed: set[int] = set()
    waiting = [node.input[0]]
    while waiting:
        maker = makers.get(waiting.pop())
        if maker is not None and id(maker) not in needed:
            needed.add(id(maker))
            waiting.extend(maker.input)
    part = onnx.ModelProto()
    part.ir_version = graph.model.ir_version
    part.opset_import.extend(graph.model.opset_import)
    part.graph.name = "part"
    part.graph.node.extend(n for n in graph.nodes if id(n) in needed)
    part.graph.input.extend(graph.model.graph.input)
    taken = {name for n in part.graph.node for name in n.input}
    for tensor in graph.model.graph.initializer:
        if tensor.name in taken:
            if math.prod(tensor.dims) <= _SMALL:
                part.graph.initializer.append(tensor)
            else:
                part.graph.input.append(
                    onnx.helper.make_tensor_value_info(
                        tensor.name, tensor.data_type, tensor.dims
                    )
                )
    part.graph.output.add(name=node.input[0])
    return infer_shapes(part)[node.input[0]]


def _is_idle(node: Any, shape: tuple[int, ...]) -> bool:
    """Says whether a Transpose keeps the order of all axes longer than 1."""
    order = attribute(node, "perm", list(reversed(range(len(shape)))))
    long_axes = [axis for axis in order if shape[axis] != 1]
    return long_axes == sorted(long_axes)


def _layer_names(graph: Graph) -> list[str]:
    """Returns a name for each node: its layer, and what it does there."""
    makers, takers = graph.makers(), graph.takers()

    def layer(node: Any) -> str:
        return _WRAPPERS.sub("", str(node.name)).rpartition("/")[0]

    found = []
    for node in graph.nodes:
        if not _COUNTER.search(node.name):
            found.append(_WRAPPERS.sub("", node.name))
            continue
        # tf2onnx put it in: it belongs where its result goes to, or comes from.
        around = [node, *takers.get(node.output[0], [])]
        around += [makers[name] for name in node.input if name in makers]
        layers = [layer(n) for n in around if layer(n)]
        found.append(f"{layers[0]}/{node.op_type}" if layers else node.op_type)
    return found


def _common_prefix(names: Sequence[str]) -> str:
    """Returns `model/` if all layers are in one model of that name."""
    roots = {name.split("/")[0] for name in names if "/" in name}
    return f"{roots.pop()}/" if len(roots) == 1 else ""


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
