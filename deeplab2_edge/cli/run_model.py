"""Opens what `deeplab2-edge run` segments with: a model file or a checkpoint."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deeplab2_edge.cli.arguments import check_size
from deeplab2_edge.cli.drawing import read_drawing_options
from deeplab2_edge.cli.engine_options import engine_options
from deeplab2_edge.errors import UsageError

if TYPE_CHECKING:
    from deeplab2_edge.runtime.clips import ClipSegmenter
    from deeplab2_edge.runtime.engine_report import EngineReport
    from deeplab2_edge.runtime.views import ViewOptions


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """Is what a run segments with.

    Attributes:
        segmenter: Takes the frames.
        options: What is drawn of its results.
        report: Of the engine; None of a checkpoint, which TensorFlow runs.
        why: What the report says has these reasons, one sentence each.
    """

    segmenter: "ClipSegmenter"
    options: "ViewOptions"
    report: "EngineReport | None" = None
    why: Sequence[str] = ()


def open_model(args: argparse.Namespace) -> OpenedModel:
    """Opens the model, and finds out what can be drawn of its results.

    Raises:
        DeepLabEdgeError: If it cannot be used, or an option does not fit it.
    """
    return (_open_file if _is_model_file(args.model) else _open_checkpoint)(args)


def _is_model_file(model: str) -> bool:
    """Tells model files from what else may be a checkpoint."""
    path = Path(model)
    is_checkpoint_file = ".data-" in path.name or path.name.endswith(
        (".index", ".tar", ".gz", ".tgz", ".zip")
    )
    return path.suffix in (".tflite", ".onnx") or (
        path.is_file() and not is_checkpoint_file
    )


def _open_file(args: argparse.Namespace) -> OpenedModel:
    from deeplab2_edge.model_file import read_model_file
    from deeplab2_edge.runtime.diagnosis import explain_engine
    from deeplab2_edge.runtime.engine import open_engine
    from deeplab2_edge.runtime.segmenter import PanopticSegmenter

    if args.config or args.input_size:
        raise UsageError(
            "--config and --input-size belong to checkpoints; a converted file "
            "carries its own settings: leave them out"
        )
    model = read_model_file(args.model)
    engine = open_engine(
        model,
        num_threads=args.threads,
        sandbox=args.sandbox,
        **engine_options(args),
    )
    why = explain_engine(model, engine.report, args.runtime)
    del model  # the engine has a graph of its own
    segmenter = PanopticSegmenter(engine)
    metadata = segmenter.metadata
    options = _drawing(
        args, has_instances=metadata.has_instances, has_depth=metadata.has_depth
    )
    _check_tracking(args, metadata.has_instances, segmenter.keeps_ids)
    return OpenedModel(_tracked(args, segmenter), options, engine.report, why)


def _open_checkpoint(args: argparse.Namespace) -> OpenedModel:
    from deeplab2_edge.config import load_config
    from deeplab2_edge.experiments import find_config
    from deeplab2_edge.families import abilities_of

    for option in ("threads", "delegate", "delegate_option", "runtime", "sandbox"):
        if getattr(args, option) not in (None, [], False):
            raise UsageError(
                f"--{option.replace('_', '-')} belongs to converted files; "
                f"{args.model} is a checkpoint"
            )
    config = load_config(find_config(args.model, args.config))
    abilities = abilities_of(config)
    options = _drawing(
        args,
        has_instances=abilities.has_instances,
        has_depth=abilities.has_depth,
    )
    _check_tracking(args, abilities.has_instances, abilities.keeps_ids)
    if args.input_size:
        stride = config.model_options.backbone.output_stride
        check_size(args.input_size, stride, "--input-size")
    from deeplab2_edge.models.engine import load_engine
    from deeplab2_edge.runtime.segmenter import PanopticSegmenter

    engine = load_engine(config, args.model, canvas=args.input_size)
    return OpenedModel(_tracked(args, PanopticSegmenter(engine)), options)


def _check_tracking(
    args: argparse.Namespace, has_instances: bool, keeps_ids: bool
) -> None:
    if args.track and not has_instances:
        raise UsageError(
            f"--track: {args.model} has no instances that could be tracked"
        )
    if args.track and keeps_ids:
        raise UsageError(
            f"--track: {args.model} follows instances by itself; leave it out"
        )


def _tracked(args: argparse.Namespace, segmenter: "ClipSegmenter") -> "ClipSegmenter":
    from deeplab2_edge.runtime.clips import TrackingSegmenter

    return TrackingSegmenter(segmenter) if args.track else segmenter


def _drawing(
    args: argparse.Namespace, *, has_instances: bool, has_depth: bool
) -> "ViewOptions":
    if args.no_overlay and args.save is not None:
        raise UsageError("--no-overlay and --save contradict each other; give one")
    options = read_drawing_options(
        args, has_instances=has_instances, has_depth=has_depth, source=args.model
    )
    return dataclasses.replace(options, kinds=()) if args.no_overlay else options
