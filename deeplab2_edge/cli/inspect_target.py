"""`deeplab2-edge inspect --target`: what a device makes of a file."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from deeplab2_edge.errors import UsageError

if TYPE_CHECKING:
    from deeplab2_edge.model_file import ModelMetadata

TARGETS = ("cpu", "gpu", "edgetpu")


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a check."""
    parser.add_argument(
        "--target",
        choices=TARGETS,
        help="predict op by op what runs on a device, of any .tflite file: cpu (the "
        "kernels of XNNPACK), gpu (TFLite's delegate), edgetpu (Coral)",
    )
    parser.add_argument(
        "--every-op", action="store_true", help="with --target, a row for each op"
    )
    parser.add_argument(
        "--compiler-log",
        metavar="FILE",
        help="with --target edgetpu, compare with what edgetpu_compiler told",
    )
    parser.add_argument(
        "--compiled",
        metavar="FILE",
        help="with --target edgetpu, give the file that edgetpu_compiler made of this "
        "one its metadata and self test, so that `run` takes it",
    )


def check_target_options(args: argparse.Namespace) -> None:
    """Refuses options that need another one.

    Raises:
        UsageError: If so.
    """
    if args.every_op and not args.target:
        raise UsageError("--every-op needs --target")
    for option in ("compiler_log", "compiled"):
        if getattr(args, option) and args.target != "edgetpu":
            name = option.replace("_", "-")
            raise UsageError(f"--{name} needs --target edgetpu")
    if args.target and not args.model.endswith(".tflite"):
        raise UsageError(
            f"--target checks .tflite files; {args.model!r} is not one (convert a "
            "checkpoint with `deeplab2-edge convert`)"
        )


def inspect_target(args: argparse.Namespace) -> int:
    """Predicts what a device makes of a file, and prints it.

    Returns:
        1 if some op divides the network or is not taken where it matters, or if a
        compiler log says something else; otherwise 0.
    """
    from deeplab2_edge.targets import check_graph, compare, read_compiler_log
    from deeplab2_edge.targets.report import (
        check_document,
        format_check,
        format_log,
        log_document,
    )

    content, metadata = _read(args.model)
    check = check_graph(content, args.target)
    document: dict[str, Any] = {
        "path": args.model,
        "is_ours": metadata is not None,
        **check_document(check),
    }
    lines = [
        f"{args.model}: {_origin(metadata)}; a prediction by rules, nothing was run",
        format_check(check, every_op=args.every_op),
    ]
    if args.target == "edgetpu":
        lines += _edge_tpu_lines(args.model, check, metadata, document)
    differences = []
    if args.compiler_log:
        log = read_compiler_log(args.compiler_log)
        differences = compare(check, log)
        document["compiler_log"] = log_document(check, log, differences)
        lines += ["", format_log(check, log, differences)]
    if args.compiled:
        lines += ["", _adopt(args.compiled, args.model, document)]
    print(json.dumps(document, indent=1) if args.json else "\n".join(lines))
    return 0 if check.is_clean and not differences else 1


def _read(path: str) -> "tuple[bytes, ModelMetadata | None]":
    """Reads any TFLite file; one of ours is verified first."""
    from deeplab2_edge.errors import ModelFileError
    from deeplab2_edge.model_file import read_graph_bytes, read_model_file
    from deeplab2_edge.targets import read_graph
    from deeplab2_edge.targets.compiled import has_metadata

    content = read_graph_bytes(path)
    if has_metadata(content):
        model = read_model_file(path)
        return model.graph, model.metadata
    try:
        read_graph(content)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from None
    return content, None


def _adopt(compiled: str, path: str, document: dict[str, Any]) -> str:
    """Gives a compiled file the metadata of its source."""
    from deeplab2_edge.model_file import read_model_file
    from deeplab2_edge.targets.compiled import adopt_compiled
    from deeplab2_edge.targets.edge_tpu import CUSTOM_OP

    _, graph = adopt_compiled(compiled, read_model_file(path))
    left = [op.name for op in graph.ops if op.name != CUSTOM_OP]
    document["compiled"] = {"path": compiled, "ops_on_cpu": left}
    rest = f"{len(left)} ops stay on the CPU" if left else "all of it on the Edge TPU"
    return (
        f"{compiled}: now with metadata and self test, {rest}; try: deeplab2-edge "
        f"verify {compiled} --delegate libedgetpu.so.1"
    )


def _origin(metadata: "ModelMetadata | None") -> str:
    if metadata is None:
        return "not ours (no metadata)"
    height, width = metadata.canvas
    return f"{metadata.name}, canvas {height}x{width}, {metadata.quantization}"


def _edge_tpu_lines(
    path: str,
    check: Any,
    metadata: "ModelMetadata | None",
    document: dict[str, Any],
) -> list[str]:
    """Adds what only the Edge TPU needs: a canvas that fits, and the command."""
    from deeplab2_edge.targets.edge_tpu import (
        COMPILER_VERSION,
        compiled_path,
        compiler_command,
        nearest_canvas,
    )

    stride = {} if metadata is None else {"output_stride": metadata.output_stride}
    canvas = nearest_canvas(check.graph, **stride)
    command = compiler_command(path)
    document["nearest_canvas"] = canvas
    document["compiler_command"] = command
    lines = []
    if canvas is not None:
        height, width = canvas
        lines.append(
            f"nearest canvas whose resizes are known to map: {height}x{width} "
            f"(`convert --input-size {height}x{width}`)"
        )
    return [
        *lines,
        "",
        f"compile with (version {COMPILER_VERSION}, x86-64 Linux; writes "
        f"{compiled_path(path)}):",
        f"  {command}",
        "then compare: deeplab2-edge inspect --target edgetpu --compiler-log "
        f"{compiled_path(path).removesuffix('.tflite')}.log {path}",
    ]
