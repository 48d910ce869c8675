"""`deeplab2-edge demo`: the main job on the shipped checkpoint."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.arguments import add_command

if TYPE_CHECKING:
    from deeplab2_edge.convert.demo import DemoResult

_EXAMPLES = """\
examples:
  deeplab2-edge demo
  deeplab2-edge demo --output /tmp/demo --json
  deeplab2-edge demo --train      # from scratch; about an hour on two cores

Converts the shipped MobileNetV3 Panoptic-DeepLab to int8, measures float against int8
on held-out scenes of the synthetic street world, times every stage on this machine,
and writes pictures and report.html.
"""
_RECIPE = "synthetic_street_mobilenet_v3_small"
# What the recipe was trained with.
_TRAIN_SCENES, _TRAIN_SHARDS = 2400, 24
_TRAIN_SIZE = (257, 513)


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "demo",
        help="the whole way on a shipped checkpoint, in two minutes",
        description="Shows the whole way from a checkpoint to a measured device model.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "--output", default="demo_output", metavar="DIR", help="default: demo_output"
    )
    parser.add_argument(
        "--scenes", type=int, default=40, metavar="N", help="held-out scenes; 40"
    )
    parser.add_argument(
        "--train",
        action="store_true",
        help="render scenes and train from scratch first; resumes if interrupted",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="with --train: stop at step N"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from deeplab2_edge import assets
    from deeplab2_edge.convert.demo import run_demo
    from deeplab2_edge.errors import UsageError

    if args.steps is not None and not args.train:
        raise UsageError("--steps belongs to --train")
    if args.scenes < 1:
        raise UsageError(f"--scenes is {args.scenes}; must be at least 1")

    def say(text: str) -> None:
        if not args.quiet:
            print(text, file=sys.stderr)

    checkpoint = _train(args) if args.train else assets.DEMO_CHECKPOINT
    result = run_demo(
        args.output,
        checkpoint=checkpoint,
        num_scenes=args.scenes,
        quiet=args.quiet,
        say=say,
    )
    if args.json:
        print(json.dumps(result.to_json(), indent=1))
    else:
        print(_summary(result))
    return 0


def _train(args: argparse.Namespace) -> str:
    """Renders the training scenes and trains the shipped recipe on them."""
    import os
    from pathlib import Path

    from deeplab2_edge.cli.experiments import load_experiment
    from deeplab2_edge.synth import TRAIN_SEED_START
    from deeplab2_edge.train.data.builders import SceneSource, build_records
    from deeplab2_edge.train.trainer import RunOptions, train

    folder = Path(args.output)
    seeds = range(TRAIN_SEED_START, TRAIN_SEED_START + _TRAIN_SCENES)
    build_records(
        SceneSource(seeds, _TRAIN_SIZE),
        folder / "records",
        "train",
        num_shards=_TRAIN_SHARDS,
        workers=os.cpu_count() or 1,
        quiet=args.quiet,
    )
    config = load_experiment(
        _RECIPE, [f"${{TRAIN_SET}}={folder}/records/train-*.tfrecord"]
    )
    summary = train(
        config,
        folder / "runs",
        RunOptions(stop_after=args.steps),
        quiet=args.quiet,
    )
    return summary.checkpoint


def _summary(result: "DemoResult") -> str:
    pq = result.float_report.pq.pq, result.int8_report.pq.pq
    miou = result.float_report.miou.miou, result.int8_report.miou.miou
    stages = result.benchmark.runs[0].stages
    lines = [
        f"held-out scenes: {result.int8_report.num_images}",
        "              PQ    mIoU",
        f"float      {100 * pq[0]:5.2f}   {100 * miou[0]:5.2f}",
        f"int8       {100 * pq[1]:5.2f}   {100 * miou[1]:5.2f}",
        "",
        "median ms  " + "".join(f"{name:>12}" for name in stages),
    ]
    for run_ in result.benchmark.runs:
        label = f"{run_.threads} thread" + ("s" if run_.threads > 1 else "")
        values = "".join(f"{t.p50_ms:12.1f}" for t in run_.stages.values())
        lines.append(f"{label:<11}{values}")
    lines += [
        "",
        f"model      {result.conversion.output} "
        f"({result.conversion.file_bytes / 1e6:.2f} MB)",
        f"report     {result.report}",
        f"took       {result.seconds:.0f} s",
    ]
    return "\n".join(lines)
