"""`deeplab2-edge convert`: a model file for devices, verified."""

import argparse
import json
import re
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.arguments import add_command, parse_size
from deeplab2_edge.errors import UsageError
from deeplab2_edge.wording import counted

if TYPE_CHECKING:
    from deeplab2_edge.convert import ConversionResult, DropLimit

_LIMIT = r"(\d+(?:\.\d*)?|\.\d+)\s*(pq|miou|stq|depth)"
_EXAMPLES = """\
examples:
  deeplab2-edge convert --quantize int8
  deeplab2-edge convert --checkpoint runs/street --config street.textproto \\
    --quantize int8 --calibration-data street/train --output street.tflite
  deeplab2-edge convert --checkpoint ckpt-60000 --config cityscapes.textproto \\
    --input-size 513x1025 --quantize fp16
  deeplab2-edge convert --quantize int8 --verify-data street/val --verify-images 50 \\
    --max-drop 1.0pq
  deeplab2-edge convert --checkpoint runs/street --quantize int8 --qat \\
    --calibration-data street/train --qat-data 'records/train-*.tfrecord'
  deeplab2-edge convert --merge graph --output maps.onnx
  deeplab2-edge convert --format saved-model --output street_saved_model

Images are a folder, record files, or `synthetic`: rendered street scenes. After the
conversion the file and the float model run on the same images; the comparison is
printed and written to OUTPUT.report.json, with a model card in OUTPUT.card.html.
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    # Tables of words; loading them loads nothing else.
    from deeplab2_edge.convert.forms import AXIAL_FORMS, TARGETS
    from deeplab2_edge.convert.modes import (
        DEFAULT_QUANTIZER,
        MODE_NAMES,
        MODES,
        QAT_STEPS,
        QUANTIZERS,
    )

    parser = add_command(
        subparsers,
        "convert",
        help="convert a checkpoint to a model file for devices",
        description="Converts a checkpoint to a TFLite or ONNX file that carries "
        "everything the runtime needs, and compares it with the float model.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "--checkpoint",
        default="demo",
        metavar="CKPT",
        help="prefix, folder or archive (.tar.gz) of a checkpoint; default: demo, the "
        "shipped one",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="text-format experiment of the checkpoint, or the name of a shipped "
        "recipe; default: config.textproto beside it",
    )
    parser.add_argument(
        "--format",
        choices=("tflite", "onnx", "saved-model"),
        help="saved-model: a folder for TensorFlow Serving; default: what --target and "
        "the name of --output say, else tflite",
    )
    parser.add_argument(
        "--target",
        choices=TARGETS,
        default="cpu",
        help="write the graph in ops that are good there (default: cpu)",
    )
    parser.add_argument(
        "--quantize",
        choices=MODE_NAMES,
        default="none",
        help="; ".join(f"{mode.name}: {mode.description}" for mode in MODES.values()),
    )
    parser.add_argument(
        "--axial",
        metavar="FORM",
        help=f"how attention is written, {' or '.join(AXIAL_FORMS)}: folded, with "
        "small tables and few moves, or as it is trained; default: what is good on the "
        "target",
    )
    parser.add_argument(
        "--merge",
        choices=("host", "graph", "custom-op"),
        default="host",
        help="where heads become panoptic maps: on the host; in the graph, so that any "
        "TFLite or ONNX runtime gives maps; or in an op of the native library, fastest "
        "(default: host)",
    )
    parser.add_argument(
        "--input-size",
        type=parse_size,
        metavar="HxW",
        help="height x width of the input; default: the evaluation crop",
    )
    parser.add_argument(
        "--calibration-data",
        metavar="DATA",
        help="images that set the ranges of int8; the demo checkpoint needs none",
    )
    parser.add_argument(
        "--calibration-images",
        type=int,
        default=100,
        metavar="N",
        help="most images to calibrate with (default: 100)",
    )
    parser.add_argument(
        "--verify-data",
        metavar="DATA",
        help="images to compare on; default: the calibration data, else synthetic",
    )
    parser.add_argument(
        "--verify-images",
        type=int,
        default=8,
        metavar="N",
        help="most images to compare on (default: 8)",
    )
    parser.add_argument(
        "--calibration-quantile",
        type=_quantile,
        metavar="Q",
        help="share of the calibration images whose range is covered, 0.5 to 1; "
        "default: auto, chosen by images to compare on",
    )
    parser.add_argument(
        "--quantizer",
        choices=QUANTIZERS,
        default=DEFAULT_QUANTIZER,
        help="engine of int8 and int8-mixed in TFLite files; ai-edge is an extra "
        f"(default: {DEFAULT_QUANTIZER})",
    )
    parser.add_argument(
        "--sensitivity",
        action="store_true",
        help="measure which layers cost most in int8; a table, and a drawing in "
        "OUTPUT.sensitivity.svg",
    )
    parser.add_argument(
        "--qat",
        action="store_true",
        help="train on with the rounding of --quantize int8 in the network, on labeled "
        "records; with --max-drop only if nothing else keeps the promise. A run that "
        "was killed goes on from OUTPUT.qat",
    )
    parser.add_argument(
        "--qat-steps",
        type=int,
        default=QAT_STEPS,
        metavar="N",
        help=f"of that training (default: {QAT_STEPS})",
    )
    parser.add_argument(
        "--qat-data",
        metavar="RECORDS",
        help="record files to train on, a pattern or a folder; default: those of the "
        "experiment",
    )
    parser.add_argument(
        "--max-drop",
        action="append",
        default=[],
        metavar="POINTS",
        help="lose at most so many points, for example 1.0pq or 0.5miou: tries other "
        "ranges and mixed precision, and writes nothing if all are worse; repeatable",
    )
    parser.add_argument(
        "--weights-license",
        "--weights-licence",
        metavar="TEXT",
        help="license of the weights, for the certificate in the file, for example "
        "CC-BY-4.0 (default: unknown)",
    )
    parser.add_argument(
        "--no-card",
        action="store_true",
        help="write no model card (OUTPUT.card.md and OUTPUT.card.html)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="default: MODEL_HxW_QUANTIZATION.FORMAT in the working folder",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    if args.format == "saved-model":
        return _export(args)
    limits = [_drop_limit(text) for text in args.max_drop]
    from deeplab2_edge.convert import ConversionOptions, convert_checkpoint

    train: Any = None
    if args.qat:
        from deeplab2_edge.train import trainer

        train = trainer.train

    result = convert_checkpoint(
        ConversionOptions(
            checkpoint=args.checkpoint,
            config=args.config,
            format=args.format,
            target=args.target,
            quantization=args.quantize,
            axial=args.axial,
            merge=args.merge,
            canvas=args.input_size,
            output=args.output,
            calibration_data=args.calibration_data,
            calibration_images=args.calibration_images,
            calibration_quantile=args.calibration_quantile,
            quantizer=args.quantizer,
            sensitivity=args.sensitivity,
            qat=args.qat,
            qat_steps=args.qat_steps,
            qat_data=args.qat_data,
            verification_data=args.verify_data,
            verification_images=args.verify_images,
            drop_limits=limits,
            weights_license=args.weights_license,
            card=not args.no_card,
        ),
        train=train,
        quiet=args.quiet,
    )
    if args.json:
        print(json.dumps(result.to_json(), indent=1))
    else:
        _print(result)
    return 0


def _export(args: argparse.Namespace) -> int:
    """Writes a SavedModel."""
    from deeplab2_edge.convert import ConversionOptions
    from deeplab2_edge.convert.serving import export_checkpoint

    result = export_checkpoint(
        ConversionOptions(
            checkpoint=args.checkpoint,
            config=args.config,
            quantization=args.quantize,
            canvas=args.input_size,
            output=args.output,
            verification_data=args.verify_data,
            verification_images=args.verify_images,
        ),
        quiet=args.quiet,
    )
    if args.json:
        print(json.dumps(result.to_json(), indent=1))
        return 0
    for name, tensors in result.info.signatures.items():
        print(name)
        for kind in ("inputs", "outputs"):
            for tensor, description in tensors[kind].items():
                print(f"  {kind[:-1]:<7} {tensor:<24} {description}")
    print(
        f"{result.different_pixels} pixels differ from evaluation, "
        f"{counted(result.compared_images, 'image')}"
    )
    print(
        f"wrote {result.info.path} ({result.info.size_bytes / 1e6:.2f} MB) in "
        f"{result.seconds:.0f} s; report in {result.report_path}"
    )
    return 0


def _print(result: "ConversionResult") -> None:
    from deeplab2_edge.convert import format_verification
    from deeplab2_edge.convert.certificate import format_certificate, read_certificate
    from deeplab2_edge.convert.quantization.ladder import format_climb
    from deeplab2_edge.convert.quantization.sensitivity import format_sensitivity

    calibration = result.calibration
    if calibration is not None:
        print(
            f"calibrated with {calibration.num_used} of "
            f"{counted(len(calibration.image_names), 'image')}"
        )
        for outlier in calibration.outliers:
            print(
                f"  left out {outlier.name}: {outlier.factor:.1f} times the usual "
                f"range in {outlier.layer}"
            )
    if result.quantile is not None:
        print(
            f"ranges cover the {result.quantile.quantile:g} quantile of the images, "
            f"best of {', '.join(f'{q:g}' for q in result.quantile.scores)}"
        )
    if result.sensitivity is not None:
        print(format_sensitivity(result.sensitivity))
    if result.tried is not None:
        print(format_climb(result.tried))
    print(format_verification(result.verification, result.metadata.quantization))
    certificate = read_certificate(result.metadata)
    if certificate is not None:
        print(format_certificate(certificate))
    for note in result.notes:
        print(f"note: {note}")
    print(
        f"wrote {result.output} ({result.file_bytes / 1e6:.2f} MB) in "
        f"{result.seconds:.0f} s; report in {result.report_path}"
        + (f", model card in {result.cards[-1]}" if result.cards else "")
    )


def _quantile(text: str) -> float | None:
    try:
        return None if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected 0.5 to 1, or auto"
        ) from None


def _drop_limit(text: str) -> "DropLimit":
    match = re.fullmatch(
        r"(\d+(?:\.\d*)?|\.\d+)\s*(pq|miou|stq|depth)", text.strip().lower()
    )
    if match is None:
        raise UsageError(
            f"--max-drop is {text!r}; expected points and a metric, for example "
            "1.0pq or 0.5miou"
        )
    from deeplab2_edge.convert import DropLimit

    return DropLimit(match[2], float(match[1]))
