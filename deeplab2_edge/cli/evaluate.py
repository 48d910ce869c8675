"""`deeplab2-edge evaluate`: metrics of a model, or of a folder of predictions."""

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.arguments import (
    add_command,
    add_set_option,
    check_size,
    parse_size,
)

if TYPE_CHECKING:
    from deeplab2_edge.metrics import OfficialWriter
    from deeplab2_edge.runtime.engine import Engine
    from deeplab2_edge.runtime.evaluation import Report
    from deeplab2_edge.samples import SampleSet

_EXAMPLES = """\
examples:
  deeplab2-edge evaluate model.tflite --data street/val --dataset camvid
  deeplab2-edge evaluate runs/my_experiment --data 'records/val-*.tfrecord'
  deeplab2-edge evaluate demo --data synthetic --limit 50
  deeplab2-edge evaluate runs/my_vip --data 'records/val-*.tfrecord' \\
      --metrics pq,stq,vpq,dvpq
  deeplab2-edge evaluate --predictions out/ --ground-truth panoptic_maps/val \\
      --dataset kitti_step --metrics pq,stq,vpq
  deeplab2-edge evaluate --predictions out/ --dataset cityscapes_panoptic \\
      --official submission/

A converted file is measured without TensorFlow, unless the data are records. Folders
of predictions hold a COCO panoptic JSON with its PNGs, results of `deeplab2-edge run`,
or label PNGs (R the class, 256 * G + B the instance), those of videos one folder each.
"""

# What folders are measured with by default; models: `runtime.evaluation.metrics_of`.
_OF_FOLDERS = ("pq", "miou")


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "evaluate",
        aliases=("eval",),
        help="metrics of a model, or of a folder of predictions",
        description="Measures panoptic quality (PQ = SQ x RQ) and mean IoU of a model,"
        " in percent, at the original size of each image. With --predictions and"
        " --ground-truth: of maps that lie there, with all metrics.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "model",
        nargs="?",
        help="a .tflite or .onnx file, a checkpoint (folder, prefix, archive), `demo`",
    )
    parser.add_argument(
        "--data",
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
    add_set_option(
        parser, "change a field of the experiment of a checkpoint; repeatable"
    )
    parser.add_argument(
        "--input-size",
        type=parse_size,
        metavar="HxW",
        help="canvas of a checkpoint; default: its evaluation crop",
    )
    parser.add_argument(
        "--predictions",
        metavar="DIR",
        help="instead of a model: folder of predicted panoptic maps, or a COCO JSON",
    )
    parser.add_argument(
        "--ground-truth",
        metavar="DIR",
        help="folder of true panoptic maps for --predictions, or a COCO JSON",
    )
    parser.add_argument(
        "--metrics",
        metavar="LIST",
        help="separated by commas (those of the model; of predictions pq,miou), some "
        "of pq, pq_official, miou, ap, stq, vpq, depth, dvpq, dstq, ids, flicker",
    )
    parser.add_argument(
        "--windows",
        metavar="LIST",
        help="numbers of frames for vpq and dvpq (1,2,3,4)",
    )
    parser.add_argument(
        "--official",
        metavar="DIR",
        help="also write the predictions as the data set's benchmark wants them",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="at most N images")
    parser.add_argument("--threads", type=int, metavar="N", help="of a converted file")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    _check_arguments(args)
    if args.predictions:
        return _run_folders(args)
    from deeplab2_edge.datasets.registry import get_dataset

    dataset = get_dataset(args.dataset) if args.dataset else None
    evaluate = _evaluate_file if _is_file(args) else _evaluate_checkpoint
    report = evaluate(args, dataset)
    if report is None:
        print(f"no labels, nothing to measure; predictions: {args.official}")
        return 0
    print(json.dumps(report.to_json(), indent=1) if args.json else report.format())
    return 0


def _is_file(args: argparse.Namespace) -> bool:
    return Path(args.model).suffix in (".tflite", ".onnx")


def _check_arguments(args: argparse.Namespace) -> None:
    from deeplab2_edge.errors import UsageError

    of_model = ("model", "data", "config", "set", "input_size", "threads")
    of_folders = ("predictions", "ground_truth")
    given = [name for name in (*of_model, *of_folders) if getattr(args, name)]
    is_folder = bool(args.predictions)
    wrong = [n for n in given if n in (of_model if is_folder else of_folders)]
    if wrong and (is_folder or args.model):
        name = wrong[0] if wrong[0] == "model" else _option(wrong[0])
        mode = "--predictions" if is_folder else "a model"
        raise UsageError(
            f"{name} does not go with {mode}; evaluate a model (MODEL --data ...) or "
            "a folder (--predictions ... --ground-truth ...)"
        )
    needed: tuple[str, ...] = ("model", "data")
    if is_folder:
        is_only_written = args.official and not args.metrics
        needed = () if is_only_written else ("ground_truth",)
    for name in needed:
        if not getattr(args, name):
            raise UsageError(
                f"{'MODEL' if name == 'model' else _option(name)} is missing; evaluate "
                "a model (MODEL --data ...) or a folder (--predictions ... "
                "--ground-truth ...)"
            )


def _metrics(args: argparse.Namespace) -> list[str] | None:
    return args.metrics.split(",") if args.metrics else None


def _windows(args: argparse.Namespace) -> tuple[int, ...]:
    from deeplab2_edge.errors import UsageError
    from deeplab2_edge.metrics import VPQ_WINDOWS

    if not args.windows:
        return VPQ_WINDOWS
    if not all(part.isdecimal() for part in args.windows.split(",")):
        raise UsageError(
            f"--windows is {args.windows!r}; expected numbers of frames separated "
            "by commas, for example 1,5,10,20"
        )
    return tuple(map(int, args.windows.split(",")))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _run_folders(args: argparse.Namespace) -> int:
    from deeplab2_edge.datasets.registry import get_dataset
    from deeplab2_edge.errors import UsageError
    from deeplab2_edge.metrics import convert_folder, evaluate_folders

    dataset = get_dataset(args.dataset) if args.dataset else None
    if args.official and dataset is None:
        raise UsageError("--official needs --dataset, whose benchmark it is for")
    windows = _windows(args)
    with _writer(args, dataset) as writer:
        if not args.ground_truth:
            assert writer is not None
            count = convert_folder(args.predictions, writer, quiet=args.quiet)
            document = {"num_images": count, "official": str(writer.directory)}
            print(json.dumps(document, indent=1) if args.json else _written(writer))
            return 0
        report = evaluate_folders(
            args.predictions,
            args.ground_truth,
            dataset,
            metrics=_metrics(args) or _OF_FOLDERS,
            windows=windows,
            limit=args.limit,
            writer=writer,
            quiet=args.quiet,
        )
    print(json.dumps(report.to_json(), indent=1) if args.json else report.format())
    return 0


def _written(writer: "OfficialWriter") -> str:
    return f"predictions in the format {writer.format}: {writer.directory}"


@contextlib.contextmanager
def _writer(
    args: argparse.Namespace, info: Any, *, is_semantic: bool = False
) -> "Iterator[OfficialWriter | None]":
    from deeplab2_edge.metrics import OfficialWriter

    if not args.official:
        yield None
        return
    kind = "semantic" if is_semantic else None
    with OfficialWriter(args.official, info, format=kind) as writer:
        yield writer


def _evaluate_checkpoint(args: argparse.Namespace, dataset: Any) -> "Report | None":
    from deeplab2_edge.cli.experiments import load_experiment
    from deeplab2_edge.experiments import find_config
    from deeplab2_edge.families import family_of
    from deeplab2_edge.models.engine import dataset_of
    from deeplab2_edge.runtime.evaluation import check_metrics
    from deeplab2_edge.train.evaluation import require_evaluable
    from deeplab2_edge.train.views import load_evaluation_engine

    config = load_experiment(str(find_config(args.model, args.config)), args.set)
    require_evaluable(config)
    options = config.model_options
    family = family_of(config)
    check_metrics(family, _metrics(args), model=str(options.meta_architecture))
    if args.input_size:
        check_size(args.input_size, options.backbone.output_stride, "--input-size")
    canvas = args.input_size or config.eval_dataset_options.crop_size
    names = dataset_of(config).class_names
    data = _open_data(args, dataset, family, (canvas[0], canvas[1]), names)
    # Building the model takes long: all that can be wrong was looked at before.
    return _evaluate(
        args,
        data,
        family,
        lambda: load_evaluation_engine(config, args.model, canvas=canvas),
    )


def _evaluate_file(args: argparse.Namespace, dataset: Any) -> "Report | None":
    from deeplab2_edge.errors import UsageError
    from deeplab2_edge.runtime.engine import open_engine
    from deeplab2_edge.runtime.evaluation import check_metrics

    if args.config or args.set or args.input_size:
        raise UsageError(
            "--config, --set and --input-size belong to checkpoints; a converted file "
            "carries its own settings: leave them out"
        )
    engine = open_engine(args.model, num_threads=args.threads)
    metadata = engine.metadata
    check_metrics(metadata.family, _metrics(args), model=metadata.meta_architecture)
    data = _open_data(
        args, dataset, metadata.family, metadata.canvas, metadata.class_names
    )
    return _evaluate(args, data, metadata.family, lambda: engine)


def _open_data(
    args: argparse.Namespace,
    dataset: Any,
    family: str,
    canvas: tuple[int, int],
    class_names: "Sequence[str]",
) -> "SampleSet":
    from deeplab2_edge.families import OF_VIDEOS
    from deeplab2_edge.samples import open_samples, require_classes

    data = open_samples(
        args.data,
        dataset,
        limit=args.limit,
        synthetic_size=canvas,
        from_start=family in OF_VIDEOS,
    )
    _has_labels(args, data)
    require_classes(data, class_names, args.model)
    return data


def _evaluate(
    args: argparse.Namespace,
    data: "SampleSet",
    family: str,
    load: "Callable[[], Engine]",
) -> "Report | None":
    from deeplab2_edge.families import SEMANTIC
    from deeplab2_edge.runtime.evaluation import evaluate_engine, write_predictions

    has_labels, windows = _has_labels(args, data), _windows(args)
    label = str(args.model)
    with _writer(args, data.info, is_semantic=family == SEMANTIC) as writer:
        engine = load()
        if not has_labels:
            assert writer is not None
            write_predictions(engine, data, writer, label=label, quiet=args.quiet)
            return None
        return evaluate_engine(
            engine,
            data,
            label=label,
            metrics=_metrics(args),
            windows=windows,
            quiet=args.quiet,
            writer=writer,
        )


def _has_labels(args: argparse.Namespace, data: "SampleSet") -> bool:
    """Says whether there is something to measure, and refuses if there must be."""
    from deeplab2_edge.errors import DataError

    if data.samples[0].load_panoptic() is not None:
        return True
    if args.official:
        return False
    raise DataError(
        f"{args.data}: {data.samples[0].name} has no label; evaluation compares "
        "with labels (see `deeplab2-edge data check`)"
    )
