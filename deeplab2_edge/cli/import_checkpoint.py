"""`deeplab2-edge import-checkpoint`: a published checkpoint becomes one of ours."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.arguments import add_command, add_set_option

if TYPE_CHECKING:
    from deeplab2_edge.checkpoint_files import CheckpointContents, Identity
    from deeplab2_edge.checkpoints import LoadReport

_EXAMPLES = """\
examples:
  deeplab2-edge import-checkpoint downloads/resnet50_os32.tar.gz \\
    --config cityscapes_panoptic_resnet50_os32 --output imported/ckpt
  deeplab2-edge import-checkpoint downloads/ckpt-60000 --config my.textproto
  deeplab2-edge import-checkpoint downloads/resnet50_os32.tar.gz \\
    --config motchallenge_motion_resnet50_os32 --widen-first-layer \\
    --keep-classes 1,2,8,10,11,12,18 --partial --output start/ckpt

The second only compares. The result holds the model alone, without optimizer, and
its configuration beside it: `deeplab2-edge convert --checkpoint imported` needs no
more. The third makes an initial checkpoint for a training. Exit code 2 says that
variables are missing or have another shape.
"""
# Enough to see what kind of difference it is.
_SHOWN = 12


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "import-checkpoint",
        help="turn a published TensorFlow 2 checkpoint into one of ours",
        description="Compares the variables of a TensorFlow 2 object checkpoint with "
        "those of a configuration's model, and writes the model alone.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "checkpoint",
        help="archive (.tar.gz, .tgz, .tar), folder, prefix, or one of its files",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="text-format experiment, or the name of a shipped recipe; default: the "
        "one beside the checkpoint",
    )
    parser.add_argument(
        "--output",
        metavar="PREFIX",
        help="folder and base name of the new checkpoint; without it nothing is "
        "written",
    )
    parser.add_argument(
        "--half",
        action="store_true",
        help="store kernels as float16: half the size, errors below 0.1 %%",
    )
    add_set_option(parser, "change a field of the configuration; repeatable")
    parser.add_argument(
        "--widen-first-layer",
        action="store_true",
        help="add input channels of zeros to the first convolution, up to those of "
        "the model (Motion-DeepLab from a model of one frame)",
    )
    parser.add_argument(
        "--keep-classes",
        type=_parse_classes,
        metavar="N,N,...",
        help="keep these classes of the semantic last layer, in this order",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="accept missing variables and write those there are, without "
        "configuration: an initial checkpoint for a training",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the comparison as JSON"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from deeplab2_edge import checkpoints
    from deeplab2_edge.checkpoint_files import identify, read_contents
    from deeplab2_edge.cli.experiments import load_experiment
    from deeplab2_edge.config import format_config, unresolved_placeholders
    from deeplab2_edge.convert.quiet import quiet_native_notes
    from deeplab2_edge.experiments import CONFIG_NAME, backbone_beside, find_config
    from deeplab2_edge.files import atomic_write, ensure_output_dir
    from deeplab2_edge.models import build_model

    contents = read_contents(args.checkpoint)
    config = load_experiment(str(find_config(args.checkpoint, args.config)), args.set)
    if "experiment_name" in unresolved_placeholders(config):
        config = config.replace(experiment_name=_experiment_name(contents, args))
    output = None if args.output is None else _checked_output(Path(args.output))
    # Variables do not depend on the size of the input; a small graph builds faster.
    stride = config.model_options.backbone.output_stride
    model = build_model(config, input_size=(2 * stride + 1, 2 * stride + 1))
    contents = _cut(contents, model, args)
    report = checkpoints.inspect_checkpoint(model, contents)
    is_whole = not report.missing or args.partial
    fits = bool(report.loaded) and is_whole and not report.mismatching
    written = None
    if fits and output is not None:
        ensure_output_dir(output.parent)
        with quiet_native_notes():
            checkpoints.load_weights(model, contents, allow_partial=args.partial)
            written = checkpoints.save_weights(
                model, output, half=args.half, only=report.loaded
            )
        if not report.missing:
            with atomic_write(output.parent / CONFIG_NAME) as temporary:
                temporary.write_text(format_config(config))
    identity = identify(contents.shapes, backbone_beside(args.checkpoint))
    if args.json:
        print(json.dumps(_describe(contents, report, identity, written), indent=1))
    else:
        _print(contents, report, identity, written)
    if not fits:
        fault = f"{contents.name}: does not hold the model of "
        fault += f"{args.config or CONFIG_NAME}; "
        fault += "nothing was written" if output else "see above"
        lines = [fault, *report.explanations, *_other_recipes(contents, model, args)]
        print("\n  ".join(lines), file=sys.stderr)
    return 0 if fits else 2


def _experiment_name(contents: "CheckpointContents", args: argparse.Namespace) -> str:
    """Returns the name of the recipe, or of the checkpoint, for an experiment."""
    from deeplab2_edge.checkpoint_files.archives import SUFFIXES, split_archive
    from deeplab2_edge.experiments import CONFIG_NAME

    if args.config and Path(args.config).name != CONFIG_NAME:
        return Path(args.config).name.removesuffix(".textproto")
    archived = split_archive(args.checkpoint)
    if archived is None:
        return Path(contents.prefix).absolute().parent.name
    name = archived[0].name
    suffix = next(s for s in SUFFIXES if name.lower().endswith(s))
    return name[: -len(suffix)]


def _other_recipes(
    contents: "CheckpointContents", model: Any, args: argparse.Namespace
) -> list[str]:
    """Returns a line with recipes for a checkpoint of another network."""
    from deeplab2_edge.checkpoint_files import identify
    from deeplab2_edge.experiments import recipes_like

    found, wanted = identify(contents.shapes), identify(_shapes(model))
    if (found.family, found.encoder) == (wanted.family, wanted.encoder):
        return []
    recipes = recipes_like(args.checkpoint, f"{found.encoder} {found.family}")
    others = [name for name in recipes if name != args.config]
    return [f"recipes like it: {', '.join(others)}"] if others else []


def _parse_classes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected numbers of classes, for example 1,2,8"
        ) from None


def _checked_output(output: Path) -> Path:
    from deeplab2_edge.errors import OutputError
    from deeplab2_edge.files import ensure_output_dir

    if output.is_dir() or not output.name:
        raise OutputError(
            f"{output}: a folder; give folder and base name of the checkpoint, "
            f"for example {output / 'ckpt'}"
        )
    # Made only for a checkpoint that fits, but what cannot be is said before the work.
    ensure_output_dir(next(f for f in output.absolute().parents if f.exists()))
    return output


def _cut(
    contents: "CheckpointContents", model: Any, args: argparse.Namespace
) -> "CheckpointContents":
    """Applies the changes that were asked for."""
    from deeplab2_edge.checkpoint_files import keep_classes, widen_first_layer

    if args.widen_first_layer:
        contents = widen_first_layer(contents, _shapes(model))
    if args.keep_classes is not None:
        contents = keep_classes(contents, args.keep_classes)
    return contents


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    from deeplab2_edge.checkpoints import variable_paths

    return {path: tuple(v.shape) for path, v in variable_paths(model).items()}


def _describe(
    contents: "CheckpointContents",
    report: "LoadReport",
    identity: "Identity",
    written: str | None,
) -> dict[str, Any]:
    return {
        "checkpoint": contents.name,
        "meta_architecture": identity.family,
        "backbone": identity.encoder,
        "num_classes": identity.num_classes,
        "matching": len(report.loaded),
        "missing": list(report.missing),
        "unexpected": list(report.unexpected),
        "mismatching": list(report.mismatching),
        "is_exact": report.is_exact,
        "explanation": "; ".join(report.explanations),
        "written": written,
    }


def _print(
    contents: "CheckpointContents",
    report: "LoadReport",
    identity: "Identity",
    written: str | None,
) -> None:
    print(f"checkpoint   {contents.name}")
    print(f"holds        {identity}")
    print(f"matching     {len(report.loaded):>5}  variables of the model")
    for title, paths, meaning in (
        ("missing", report.missing, "in the model, not in the checkpoint"),
        ("unexpected", report.unexpected, "in the checkpoint, not in the model"),
        ("mismatching", report.mismatching, "of another shape"),
    ):
        print(f"{title:<13}{len(paths):>5}  {meaning}")
        for path in paths[:_SHOWN]:
            print(f"                    {path}")
        if len(paths) > _SHOWN:
            print(f"                    and {len(paths) - _SHOWN} more (--json)")
    if written is not None:
        print(f"wrote        {written}")
    if written is not None and report.missing:
        print("             a part: give it as model_options.initial_checkpoint")
