"""`deeplab2-edge evaluate`: PQ and mIoU of a checkpoint or a converted file."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.arguments import add_command, check_size, parse_size

if TYPE_CHECKING:
    from deeplab2_edge.metrics import EvaluationReport

_EXAMPLES = """\
examples:
  deeplab2-edge evaluate model.tflite --data street/val --dataset camvid
  deeplab2-edge evaluate runs/my_experiment --data 'records/val-*.tfrecord'
  deeplab2-edge evaluate demo --data synthetic --limit 50

A converted file is measured without TensorFlow, unless the data are records.
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "evaluate",
        help="PQ, mIoU of a checkpoint or a converted file",
        description="Measures panoptic quality (PQ = SQ x RQ) and mean IoU, in percent,"
        " at the original size of each image.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "model",
        help="a .tflite file, a checkpoint (folder, prefix, .tar.gz), or `demo`",
    )
    parser.add_argument(
        "--data",
        required=True,
        help="folder of images and labels, record files, or `synthetic`",
    )
    parser.add_argument(
        "--dataset", help="name or description file, if the data does not tell"
    )
    parser.add_argument(
        "--config",
        help="experiment of a checkpoint, or the name of a shipped recipe; default: "
        "config.textproto beside it",
    )
    parser.add_argument(
        "--input-size",
        type=parse_size,
        metavar="HxW",
        help="canvas of a checkpoint; default: its evaluation crop",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="at most N images")
    parser.add_argument("--threads", type=int, metavar="N", help="of a converted file")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from deeplab2_edge.datasets.registry import get_dataset
    from deeplab2_edge.metrics import format_report
    from deeplab2_edge.samples import open_samples

    dataset = get_dataset(args.dataset) if args.dataset else None
    if Path(args.model).suffix == ".tflite":
        report = _evaluate_file(args, dataset)
    else:
        from deeplab2_edge.config import load_config
        from deeplab2_edge.experiments import find_config
        from deeplab2_edge.train.evaluation import evaluate_checkpoint

        config = load_config(find_config(args.model, args.config))
        if args.input_size:
            stride = config.model_options.backbone.output_stride
            check_size(args.input_size, stride, "--input-size")
        canvas = args.input_size or config.eval_dataset_options.crop_size
        data = open_samples(
            args.data, dataset, limit=args.limit, synthetic_size=tuple(canvas)
        )
        report = evaluate_checkpoint(
            config, args.model, data, canvas=canvas, quiet=args.quiet
        )
    print(
        json.dumps(report.to_json(), indent=1) if args.json else format_report(report)
    )
    return 0


def _evaluate_file(args: argparse.Namespace, dataset: Any) -> "EvaluationReport":
    from deeplab2_edge.errors import DataError, UsageError
    from deeplab2_edge.metrics import evaluate_predictions
    from deeplab2_edge.runtime import PanopticSegmenter
    from deeplab2_edge.samples import open_samples

    if args.config or args.input_size:
        raise UsageError(
            "--config and --input-size belong to checkpoints; a converted file "
            "carries its own settings: leave them out"
        )
    segmenter = PanopticSegmenter(args.model, num_threads=args.threads)
    data = open_samples(
        args.data,
        dataset,
        limit=args.limit,
        synthetic_size=segmenter.metadata.canvas,
    )
    if data.samples[0].load_panoptic() is None:
        raise DataError(
            f"{args.data}: {data.samples[0].name} has no label; evaluation compares "
            "with labels (see `deeplab2-edge data check`)"
        )
    names, found = segmenter.metadata.class_names, data.info.class_names
    if names != found:
        raise UsageError(
            f"{args.model} knows the classes {', '.join(names[:4])}, ... and the data "
            f"{', '.join(found[:4])}, ...; name the right data set with --dataset"
        )
    return evaluate_predictions(
        segmenter, data.samples, data.info, label=str(args.model), quiet=args.quiet
    )
