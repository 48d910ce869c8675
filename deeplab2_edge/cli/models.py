"""`deeplab2-edge models`: every network, and what it costs."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.arguments import add_command, check_size, parse_size

if TYPE_CHECKING:
    from deeplab2_edge.config import ExperimentOptions
    from deeplab2_edge.networks import Network

_EDGE_STRIDES = (8, 16, 32)
_ALL_STRIDES = (4, *_EDGE_STRIDES)
_EDGE_BACKBONES = (
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "mobilenet_v3_small_minimalistic",
    "mobilenet_v3_large_minimalistic",
)
_EDGE_CANVAS = (257, 513)
# Decoder width -> recipe that has it.
_WIDTHS = {
    "demo": "synthetic_street_mobilenet_v3_small",
    "published": "cityscapes_panoptic_mobilenet_v3_small_os16",
}
_EXAMPLES = """\
examples:
  deeplab2-edge models
  deeplab2-edge models --architecture max_deeplab --json
  deeplab2-edge models --backbone resnet50 --input-size 513x1025
  deeplab2-edge models my_street.textproto
  deeplab2-edge models --edge --input-size 257x513 --width demo

At their published canvas the shipped networks are known. At another one, and for a
file, they are counted: seconds for each, and no memory for weights.
"""
_NOTES = """\
~ is computed, the rest measured. Memory: of float32 weights and one forward pass of one
image. Time: of that pass on a CPU, over that of {baseline} at
the same canvas; computed, it is the ratio of multiply-adds."""
_NOTE_ON_RECIPES = "+1, +2: so many further recipes have the same network."


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "models",
        help="list every network with its cost",
        description="Lists the networks of the shipped recipes with parameters, "
        "multiply-adds, memory and relative time of one forward pass.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME|FILE", help="only these recipes or files"
    )
    parser.add_argument("--architecture", metavar="NAME", help="only this one")
    parser.add_argument("--backbone", metavar="NAME", help="only this one")
    parser.add_argument(
        "--output-stride", type=int, choices=_ALL_STRIDES, help="only this one"
    )
    parser.add_argument(
        "--input-size",
        type=parse_size,
        metavar="HxW",
        help="height x width of the input (default: the published canvas; with "
        "--edge 257x513)",
    )
    parser.add_argument(
        "--edge",
        action="store_true",
        help="instead, what MobileNetV3 offers small devices: every output stride, and "
        "two widths of the decoder",
    )
    parser.add_argument(
        "--width",
        choices=tuple(_WIDTHS),
        help="with --edge, only this one: 256 channels and the 19 classes of "
        "Cityscapes as published, or a quarter and 11 classes as in the demo",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from deeplab2_edge.networks import BASELINE

    _check_names(args)
    rows = _edge_rows(args) if args.edge else _rows(args)
    rows = [_with_totals(row) for row in rows]
    if args.json:
        print(json.dumps({"baseline": BASELINE, "models": rows}, indent=1))
    else:
        _print_table(rows)
    return 0


def _check_names(args: argparse.Namespace) -> None:
    from deeplab2_edge.config.backbones import out_of_scope, unknown_backbone
    from deeplab2_edge.config.textformat import nearest
    from deeplab2_edge.errors import UsageError
    from deeplab2_edge.networks import ARCHITECTURES

    if args.architecture and args.architecture not in ARCHITECTURES:
        later = out_of_scope(args.architecture)
        hint = f"; {later}" if later else nearest(args.architecture, ARCHITECTURES)
        raise UsageError(
            f"--architecture is {args.architecture!r}; expected one of "
            f"{', '.join(ARCHITECTURES)}{hint}"
        )
    if args.backbone and (fault := unknown_backbone(args.backbone)):
        raise UsageError(f"--backbone is {args.backbone!r}; {fault}")
    if args.width and not args.edge:
        raise UsageError("--width chooses among the networks of --edge; add --edge")
    if args.edge and args.names:
        raise UsageError("--edge lists networks of its own; leave out the names")


def _rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    from deeplab2_edge.networks import find_network, shipped_costs, shipped_networks

    networks = shipped_networks()
    if args.names:
        own = {name: network for network in networks for name in network.recipes}
        networks = [
            own.get(name) or find_network(name, args.input_size) for name in args.names
        ]
    networks = _fitting(
        [network for network in networks if _is_wanted(network.config, args)], args
    )
    known = {row["recipes"][0]: row for row in shipped_costs()["rows"]}
    rows, costs = [], _Costs()
    for network in _with_progress(networks, args):
        canvas = args.input_size or network.canvas
        row = known.get(network.name)
        if row is None or tuple(row["input_size"]) != canvas:
            row = {
                "recipes": list(network.recipes),
                **costs.describe(network.config, canvas),
            }
        rows.append({"name": network.name, **row})
    return rows


def _edge_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    from deeplab2_edge.cli.experiments import load_experiment
    from deeplab2_edge.config.backbones import backbone_info
    from deeplab2_edge.networks import Network

    canvas = args.input_size or _EDGE_CANVAS
    networks, widths = [], {}
    for backbone in _EDGE_BACKBONES:
        info = backbone_info(backbone)
        has_gates = info is not None and bool(info.use_squeeze_and_excite)
        for stride in _EDGE_STRIDES:
            for width in (args.width,) if args.width else _WIDTHS:
                config = load_experiment(
                    _WIDTHS[width],
                    [
                        f"model_options.backbone.name={backbone}",
                        f"model_options.backbone.output_stride={stride}",
                        "model_options.backbone.use_squeeze_and_excite="
                        f"{str(has_gates).lower()}",
                    ],
                )
                name = f"{backbone}_os{stride}_{width}"
                widths[name] = width
                if _is_wanted(config, args):
                    networks.append(Network((name,), config, canvas))
    rows, costs = [], _Costs()
    for network in _with_progress(_fitting(networks, args), args):
        options = network.config.model_options
        assert options.panoptic_deeplab and options.panoptic_deeplab.semantic_head
        head = options.panoptic_deeplab.semantic_head
        rows.append(
            {
                "name": network.name,
                "recipes": [],
                **costs.describe(network.config, canvas),
                "width": widths[network.name],
                "decoder_channels": options.decoder.decoder_channels,
                "num_classes": head.output_channels,
            }
        )
    return rows


def _is_wanted(config: "ExperimentOptions", args: argparse.Namespace) -> bool:
    from deeplab2_edge.networks import architecture_of

    backbone = config.model_options.backbone
    return (
        args.architecture in (None, architecture_of(config))
        and (not args.backbone or args.backbone.lower() == backbone.name.lower())
        and args.output_stride in (None, backbone.output_stride)
    )


def _fitting(networks: "list[Network]", args: argparse.Namespace) -> "list[Network]":
    """Leaves out networks whose output stride does not fit the canvas.

    Raises:
        UsageError: If there is no network, or none that fits.
    """
    from deeplab2_edge.config.sizes import fits_stride
    from deeplab2_edge.errors import UsageError

    if not networks:
        wanted = {
            "--architecture": args.architecture,
            "--backbone": args.backbone,
            "--output-stride": args.output_stride,
        }
        given = " ".join(
            f"{option} {value}" for option, value in wanted.items() if value
        )
        raise UsageError(
            f"no network has {given}; `deeplab2-edge models` lists all, or give a "
            "configuration file"
        )
    size = args.input_size
    if size is None:
        return networks
    strides = [n.config.model_options.backbone.output_stride for n in networks]
    fitting = [
        network
        for network, stride in zip(networks, strides, strict=True)
        if fits_stride(size, stride)
    ]
    if not fitting:
        check_size(size, min(strides), "--input-size")
    return fitting


class _Costs:
    """Counts networks, and the baseline once for each canvas."""

    def __init__(self) -> None:
        self._baselines: dict[tuple[int, int], Any] = {}

    def describe(
        self, config: "ExperimentOptions", canvas: tuple[int, int]
    ) -> dict[str, Any]:
        from deeplab2_edge.models.cost import network_cost
        from deeplab2_edge.networks import BASELINE, describe_network, find_network

        # The baseline comes second: a network with a fault is told at once.
        cost = network_cost(config, input_size=canvas)
        if canvas not in self._baselines:
            baseline = find_network(BASELINE).config
            self._baselines[canvas] = network_cost(baseline, input_size=canvas)
        return describe_network(config, canvas, cost, self._baselines[canvas])


def _with_progress(networks: "list[Network]", args: argparse.Namespace) -> Any:
    from deeplab2_edge.progress import progress

    # What is known is listed at once.
    quiet = args.quiet or not (args.edge or args.input_size)
    return progress(networks, total=len(networks), label="counting", quiet=quiet)


def _with_totals(row: dict[str, Any]) -> dict[str, Any]:
    """Adds the memory and the time that count: measured ones, else computed ones."""
    measured = row["measured"] or {}
    memory = measured.get("memory_bytes")
    seconds = measured.get("relative_time")
    return {
        **row,
        "peak_memory_bytes": row["computed_memory_bytes"] if memory is None else memory,
        "is_peak_memory_measured": memory is not None,
        "relative_time": row["relative_multiply_adds"] if seconds is None else seconds,
        "is_relative_time_measured": seconds is not None,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from deeplab2_edge.networks import ARCHITECTURES, BASELINE

    labels = [
        f"{row['name']} +{len(row['recipes']) - 1}"
        if len(row["recipes"]) > 1
        else row["name"]
        for row in rows
    ]
    width = max(map(len, labels))
    print(
        f"{'':{width + 2}}{'canvas':>11}{'parameters':>12}{'MACs':>11}"
        f"{'memory':>11}{'time':>8}"
    )
    for architecture in ARCHITECTURES:
        group = [
            (row, label)
            for row, label in zip(rows, labels, strict=True)
            if row["architecture"] == architecture
        ]
        if group:
            print(architecture)
        for row, label in group:
            canvas = "x".join(map(str, row["input_size"]))
            memory = f"{row['peak_memory_bytes'] / 1e9:.2f}"
            memory = memory if row["is_peak_memory_measured"] else f"~{memory}"
            time = f"{row['relative_time']:.2f}"
            time = time if row["is_relative_time_measured"] else f"~{time}"
            print(
                f"  {label:<{width}}{canvas:>11}{row['parameters'] / 1e6:>10.2f} M"
                f"{row['multiply_adds'] / 1e9:>9.2f} G{memory:>8} GB{time:>8}"
            )
    print("\n" + _NOTES.format(baseline=BASELINE))
    if any(len(row["recipes"]) > 1 for row in rows):
        print(_NOTE_ON_RECIPES)
