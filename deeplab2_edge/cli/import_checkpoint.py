"""`deeplab2-edge import-checkpoint`: a published checkpoint becomes one of ours."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.arguments import add_command

if TYPE_CHECKING:
    from deeplab2_edge.checkpoints import LoadReport

_EXAMPLES = """\
examples:
  deeplab2-edge import-checkpoint downloads/ckpt-60000 \\
    --config cityscapes_panoptic_mobilenet_v3_large_os16 --output imported/ckpt
  deeplab2-edge import-checkpoint downloads/ckpt-60000 --config my.textproto

The second only compares. The result holds the model alone, without optimizer, and
its configuration beside it: `deeplab2-edge convert --checkpoint imported` needs no
more. Exit code 2 says that variables are missing or have another shape.
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
        "checkpoint", help="prefix, folder, or one of the checkpoint's files"
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="text-format experiment, or the name of a shipped recipe",
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
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the configuration; repeatable",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the comparison as JSON"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from deeplab2_edge import checkpoints
    from deeplab2_edge.cli.experiments import load_experiment
    from deeplab2_edge.config import format_config
    from deeplab2_edge.convert.quiet import quiet_native_notes
    from deeplab2_edge.errors import OutputError
    from deeplab2_edge.experiments import CONFIG_NAME
    from deeplab2_edge.files import atomic_write, ensure_output_dir
    from deeplab2_edge.models import build_model

    checkpoints.resolve_checkpoint(args.checkpoint)
    config = load_experiment(args.config, args.set)
    output = None if args.output is None else Path(args.output)
    if output is not None:
        if output.is_dir() or not output.name:
            raise OutputError(
                f"{output}: a folder; give folder and base name of the checkpoint, "
                f"for example {output / 'ckpt'}"
            )
        ensure_output_dir(output.parent)
    # Variables do not depend on the size of the input; a small graph builds faster.
    stride = config.model_options.backbone.output_stride
    model = build_model(config, input_size=(2 * stride + 1, 2 * stride + 1))
    report = checkpoints.inspect_checkpoint(model, args.checkpoint)
    fits = bool(report.loaded) and not (report.missing or report.mismatching)
    written = None
    if fits and output is not None:
        with quiet_native_notes():
            checkpoints.load_weights(model, args.checkpoint)
            written = checkpoints.save_weights(model, output, half=args.half)
        with atomic_write(output.parent / CONFIG_NAME) as temporary:
            temporary.write_text(format_config(config))
    if args.json:
        print(json.dumps(_describe(report, written), indent=1))
    else:
        _print(report, written)
    if not fits:
        print(
            f"{report.prefix}: does not hold the model of {args.config}; "
            + ("nothing was written" if output else "see above"),
            file=sys.stderr,
        )
    return 0 if fits else 2


def _describe(report: "LoadReport", written: str | None) -> dict[str, Any]:
    return {
        "checkpoint": report.prefix,
        "matching": len(report.loaded),
        "missing": list(report.missing),
        "unexpected": list(report.unexpected),
        "mismatching": list(report.mismatching),
        "is_exact": report.is_exact,
        "written": written,
    }


def _print(report: "LoadReport", written: str | None) -> None:
    print(f"checkpoint   {report.prefix}")
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
