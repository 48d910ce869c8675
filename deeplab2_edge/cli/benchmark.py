"""`deeplab2-edge benchmark`: measure a model on this machine."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.arguments import add_command
from deeplab2_edge.cli.engine_options import add_engine_options, engine_options
from deeplab2_edge.errors import UsageError
from deeplab2_edge.wording import counted

if TYPE_CHECKING:
    from deeplab2_edge.runtime.benchmark import BenchmarkReport

_EPILOG = """\
Stages: decode (file to pixels), preprocess (to the canvas), network, merge (heads to
segments at the size of the image), draw (overlay). Without --input the model's own
golden image is used, or a drawn street scene.

--json prints: schema_version, model, machine, input, repeats, threads, load_ms,
stages.{decode,preprocess,network,merge,draw}.{p50_ms,p90_ms,p99_ms}, total (the same
three), engine (what computed the network), peak_memory_bytes, and runs with threads,
load_ms, stages, total and engine of every number of threads. The figures outside runs
are those of the fastest run.

Under an emulator (QEMU) nothing is measured or written; the exit code is 2.

examples:
  deeplab2-edge benchmark model.tflite
  deeplab2-edge benchmark model.tflite --threads 1,2,4 --input photos/
  deeplab2-edge benchmark model.tflite --json > report.json
  deeplab2-edge benchmark model.tflite --threads 1,4 --plot bench.png
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        subparsers,
        "benchmark",
        help="measure load, decode, preprocess, network, merge and draw",
        description="Measures a converted model on this machine, each stage apart.",
        examples=_EPILOG,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a file made by `deeplab2-edge convert`"
    )
    parser.add_argument(
        "--threads",
        metavar="N,N",
        help="numbers to try (default: the usable cores, at most 4)",
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="PATH",
        help="image or folder of images; may be repeated",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=50,
        metavar="N",
        help="images to measure for each number of threads (default: %(default)s)",
    )
    parser.add_argument(
        "--warmup",
        type=int,
        default=5,
        metavar="N",
        help="images before that, not counted (default: %(default)s)",
    )
    add_engine_options(parser)
    parser.add_argument("--plot", metavar="FILE", help="also draw the result as a PNG")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document instead of text"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures and reports."""
    from deeplab2_edge.files import ensure_output_file
    from deeplab2_edge.images import write_png
    from deeplab2_edge.runtime.benchmark import draw_plot, run_benchmark

    if args.plot is not None:
        if not args.plot.lower().endswith(".png"):
            raise UsageError(f"--plot is {args.plot!r}; the name must end in .png")
        ensure_output_file(args.plot)
    report = run_benchmark(
        args.model,
        threads=_parse_threads(args.threads),
        inputs=args.input,
        repeats=args.repeats,
        warmup=args.warmup,
        **engine_options(args),
        quiet=args.quiet,
    )
    if args.plot is not None:
        write_png(args.plot, draw_plot(report))
    if args.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        _print_report(report)
        if args.plot is not None:
            print(f"plot: {args.plot}")
    return 0


def _parse_threads(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--threads is {text!r}; give numbers with commas, such as 1,2,4"
        ) from None


def _print_report(report: "BenchmarkReport") -> None:
    model, machine = report.model, report.machine
    canvas = "x".join(str(side) for side in model["canvas"])
    print(
        f"model    {model['name']} ({model['backbone']}, canvas {canvas}, "
        f"{model['quantization']}, {model['bytes'] / 1e6:.2f} MB)"
    )
    print(f"machine  {_machine_line(machine)}")
    engine = report.fastest.engine
    print(f"engine   {engine}")
    for note in (engine.fallback_reason, *engine.notes):
        if note:
            print(f"note     {note}")
    images = counted(report.repeats, "image")
    print(f"input    {report.input['source']}, {images} per run")
    for run in report.runs:
        print(f"\n{counted(run.threads, 'thread')}, load {run.load_ms:.1f} ms")
        print(f"  {'ms':<11}{'p50':>9}{'p90':>9}{'p99':>9}")
        for name, timing in [*run.stages.items(), ("total", run.total)]:
            print(
                f"  {name:<11}{timing.p50_ms:>9.2f}{timing.p90_ms:>9.2f}"
                f"{timing.p99_ms:>9.2f}"
            )
    rate = 1000 / report.fastest.total.p50_ms
    peak = report.peak_memory_bytes
    memory = f", peak memory {peak / 2**20:.0f} MiB" if peak else ""
    print(f"\n{rate:.1f} images per second{memory}")


def _machine_line(machine: dict[str, Any]) -> str:
    parts = [
        machine["board"] or machine["cpu"] or machine["architecture"],
        f"{machine['usable_cores']} of {counted(machine['cores'], 'core')}",
    ]
    if machine["governor"]:
        parts.append(f"governor {machine['governor']}")
    if machine["temperature_after_c"] is not None:
        parts.append(f"{machine['temperature_after_c']:.0f} C after")
    parts += [
        f"{name} {version}"
        for name, version in machine["versions"].items()
        if name != "deeplab2-edge"
    ]
    return ", ".join(parts)
