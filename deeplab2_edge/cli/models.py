"""`deeplab2-edge models`: every variant known, and what it costs."""

import argparse
import json
from typing import Any

from deeplab2_edge.cli.arguments import add_command, check_size, parse_size

_BACKBONES = ("mobilenet_v3_small", "mobilenet_v3_large")
_OUTPUT_STRIDES = (8, 16, 32)
# Decoder width -> recipe that has it.
_WIDTHS = {
    "demo": "synthetic_street_mobilenet_v3_small",
    "published": "cityscapes_panoptic_mobilenet_v3_small_os16",
}
_EXAMPLES = """\
examples:
  deeplab2-edge models
  deeplab2-edge models --input-size 513x1025 --width demo --json

Published decoders have 256 channels and 19 classes (Cityscapes), those of the demo a
quarter and 11 classes. A smaller output stride sees finer detail and costs more.
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "models",
        help="list every model variant with its cost",
        description="Lists the variants of Panoptic-DeepLab that can be built, with "
        "parameters and multiply-adds per image.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "--input-size",
        type=parse_size,
        default=(257, 513),
        metavar="HxW",
        help="height x width of the input (default: 257x513)",
    )
    parser.add_argument("--backbone", choices=_BACKBONES, help="only this one")
    parser.add_argument(
        "--output-stride", type=int, choices=_OUTPUT_STRIDES, help="only this one"
    )
    parser.add_argument("--width", choices=tuple(_WIDTHS), help="only this one")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    size = args.input_size
    variants = [
        (backbone, stride, width)
        for backbone in _BACKBONES
        for stride in _OUTPUT_STRIDES
        for width in _WIDTHS
        if args.backbone in (None, backbone)
        and args.output_stride in (None, stride)
        and args.width in (None, width)
        and all((side - 1) % stride == 0 and side > stride for side in size)
    ]
    if not variants:
        check_size(size, args.output_stride or min(_OUTPUT_STRIDES), "--input-size")
    from deeplab2_edge.progress import progress

    rows = [
        _row(*variant, size)
        for variant in progress(
            variants, total=len(variants), label="building", quiet=args.quiet
        )
    ]
    if args.json:
        print(json.dumps({"input_size": list(size), "models": rows}, indent=1))
        return 0
    print(f"Panoptic-DeepLab, input {size[0]}x{size[1]} (height x width)")
    print(f"{'backbone':<20}{'stride':>7}  {'width':<11}{'parameters':>12}{'MACs':>10}")
    for row in rows:
        print(
            f"{row['backbone']:<20}{row['output_stride']:>7}  {row['width']:<11}"
            f"{row['parameters'] / 1e6:>10.2f} M{row['multiply_adds'] / 1e9:>8.2f} G"
        )
    return 0


def _row(
    backbone: str, output_stride: int, width: str, size: tuple[int, int]
) -> dict[str, Any]:
    from deeplab2_edge.cli.experiments import load_experiment
    from deeplab2_edge.models import build_model
    from deeplab2_edge.models.cost import model_cost

    config = load_experiment(
        _WIDTHS[width],
        [
            f"model_options.backbone.name={backbone}",
            f"model_options.backbone.output_stride={output_stride}",
        ],
    )
    options = config.model_options.panoptic_deeplab
    assert options is not None and options.semantic_head is not None
    cost = model_cost(build_model(config, input_size=size, batch_size=1))
    return {
        "meta_architecture": "panoptic_deeplab",
        "backbone": backbone,
        "output_stride": output_stride,
        "width": width,
        "decoder_channels": config.model_options.decoder.decoder_channels,
        "num_classes": options.semantic_head.output_channels,
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
    }
