"""`deeplab2-edge inspect`: what is inside a model file or a checkpoint."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.arguments import add_command
from deeplab2_edge.cli.inspect_target import (
    add_target_options,
    check_target_options,
    inspect_target,
)

if TYPE_CHECKING:
    from deeplab2_edge.model_file import ModelMetadata
    from deeplab2_edge.runtime.tensors import TensorInfo

_EPILOG = """\
examples:
  deeplab2-edge inspect model.tflite
  deeplab2-edge inspect model.tflite --json | jq .op_counts
  deeplab2-edge inspect downloads/resnet50_os32.tar.gz
  deeplab2-edge inspect --target edgetpu model.tflite

None of it needs TensorFlow.
"""

# Of the longest label, `checkpoint sha256`, and two spaces.
_LABEL_WIDTH = 19


def add_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        subparsers,
        "inspect",
        help="show what is inside a model file or a checkpoint",
        description="Shows metadata, ops and tensors of a converted model, or what "
        "network a checkpoint belongs to, and that the file is whole.",
        examples=_EPILOG,
    )
    parser.add_argument(
        "model",
        metavar="FILE",
        help="a .tflite or .onnx file made by `deeplab2-edge convert`, or a "
        "checkpoint: archive, folder, prefix, or `demo`",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document instead of text"
    )
    add_target_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Reads, verifies and describes the file."""
    check_target_options(args)
    if args.target:
        return inspect_target(args)
    if not args.model.endswith((".tflite", ".onnx")):
        return _inspect_checkpoint(args.model, is_json=args.json)
    from pathlib import Path

    from deeplab2_edge.model_file import ONNX, read_model_file
    from deeplab2_edge.runtime import interpreter, onnx_engine
    from deeplab2_edge.runtime.engine import open_engine, self_test

    model = read_model_file(args.model)
    of_format = onnx_engine if model.format == ONNX else interpreter
    describe_graph = of_format.describe_graph
    graph = describe_graph(model)
    differences = self_test(open_engine(model), model)
    file_bytes = Path(args.model).stat().st_size
    if args.json:
        document = {
            "path": args.model,
            "file_bytes": file_bytes,
            "graph_bytes": len(model.graph),
            "self_test": differences,
            "op_counts": dict(graph.op_counts),
            "num_tensors": graph.num_tensors,
            "inputs": [_tensor_document(tensor) for tensor in graph.inputs],
            "outputs": [_tensor_document(tensor) for tensor in graph.outputs],
            "metadata": json.loads(model.metadata.to_json()),
        }
        print(json.dumps(document, indent=1))
        return 0
    print(
        f"{args.model}: {file_bytes} bytes, graph {len(model.graph)}, SHA-256 verified"
    )
    _print_metadata(model.metadata)
    print(f"{'self test':<{_LABEL_WIDTH}}{_self_test_line(differences)}")
    for title, tensors in (("input", graph.inputs), ("outputs", graph.outputs)):
        for tensor in tensors:
            print(f"{title:<{_LABEL_WIDTH}}{_tensor_line(tensor)}")
            title = ""
    total = sum(graph.op_counts.values())
    print(f"{'ops':<{_LABEL_WIDTH}}{total} ops, {graph.num_tensors} tensors")
    for name, count in graph.op_counts.items():
        print(f"  {count:>5}  {name}")
    return 0


def _inspect_checkpoint(location: str, *, is_json: bool) -> int:
    import math

    from deeplab2_edge.checkpoint_files import identify, read_contents
    from deeplab2_edge.experiments import backbone_beside, similar_recipes

    contents = read_contents(location)
    identity = identify(contents.shapes, backbone_beside(location))
    num_values = sum(math.prod(shape) for shape in contents.shapes.values())
    recipes = similar_recipes(location.rstrip("/").split("/")[-1])
    if is_json:
        document = {
            "path": location,
            "prefix": contents.prefix,
            "meta_architecture": identity.family,
            "backbone": identity.encoder,
            "num_classes": identity.num_classes,
            "input_channels": identity.input_channels,
            "num_variables": len(contents.variables),
            "num_values": num_values,
            "num_training_state": contents.num_state,
            "recipes": recipes,
            "variables": {p: list(s) for p, s in sorted(contents.shapes.items())},
            "others": list(contents.passed_over),
        }
        print(json.dumps(document, indent=1))
        return 0
    lines = {
        "checkpoint": contents.name,
        "network": str(identity),
        "variables": f"{len(contents.variables)} with {num_values:,} values",
        "training state": f"{contents.num_state} of optimizer and counters"
        if contents.num_state
        else "none",
    }
    if contents.is_foreign:
        lines["written by"] = "another trainer; only its encoder counts"
    if contents.passed_over:
        lines["others"] = f"{len(contents.passed_over)}, {contents.passed_over[0]}, ..."
    if recipes:
        lines["recipes like it"] = ", ".join(recipes)
    items: dict[str, int] = {}
    for path in sorted(contents.shapes):
        items[path.split("/")[0]] = items.get(path.split("/")[0], 0) + 1
    for name, value in lines.items():
        print(f"{name:<{_LABEL_WIDTH}}{value}")
    for item, count in items.items():
        print(f"  {count:>5}  {item}")
    return 0


def _print_metadata(metadata: "ModelMetadata") -> None:
    merge = metadata.merge
    things = [metadata.class_names[i] for i in metadata.thing_ids]
    stuff = [name for name in metadata.class_names if name not in things]
    height, width = metadata.canvas
    head_height, head_width = metadata.head_size
    lines = {
        "name": metadata.name,
        "network": f"{metadata.meta_architecture}, {metadata.backbone}, "
        f"output stride {metadata.output_stride}",
        "quantization": metadata.quantization,
        "canvas": f"{height}x{width} high x wide, heads {head_height}x{head_width}",
        "resize": f"min {metadata.resize.min}, max {metadata.resize.max}, "
        f"factor {metadata.resize.factor}",
        "things": ", ".join(things) or "none",
        "stuff": ", ".join(stuff) or "none",
        "panoptic id": f"class * {metadata.label_divisor} + number; void is class "
        f"{metadata.ignore_label}",
    }
    if merge is not None:
        lines["merge"] = (
            f"center threshold {merge.center_score_threshold:g}, NMS "
            f"{merge.nms_kernel}, at most {merge.keep_k_centers} centers, stuff from "
            f"{merge.stuff_area_limit} px"
        )
    for key, value in metadata.provenance.items():
        lines[key.replace("_", " ")] = (
            value if isinstance(value, str) else json.dumps(value)
        )
    for name, value in lines.items():
        print(f"{name:<{_LABEL_WIDTH}}{value}")


def _self_test_line(differences: dict[str, float] | None) -> str:
    if differences is None:
        return "none in this file"
    shares = ", ".join(f"{name} {share:.2%}" for name, share in differences.items())
    return f"largest difference in share of range: {shares}"


def _tensor_document(tensor: "TensorInfo") -> dict[str, Any]:
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "scale": tensor.scale,
        "zero_point": tensor.zero_point,
    }


def _tensor_line(tensor: "TensorInfo") -> str:
    line = f"{tensor.name} {tensor.dtype} {list(tensor.shape)}"
    if tensor.scale:
        line += f", scale {tensor.scale:g}, zero point {tensor.zero_point}"
    return line
