"""`deeplab2-edge verify`: does a model file still do what it promised?"""

import argparse
import json
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.arguments import add_command
from deeplab2_edge.cli.engine_options import (
    add_engine_options,
    add_threads_option,
    engine_options,
)
from deeplab2_edge.wording import counted

if TYPE_CHECKING:
    from deeplab2_edge.convert.certificate import Certificate
    from deeplab2_edge.convert.repetition import Repetition
    from deeplab2_edge.model_file import ModelFile
    from deeplab2_edge.runtime.check import SelfTest

_EXAMPLES = """\
examples:
  deeplab2-edge verify model.tflite                  # on any device
  deeplab2-edge verify model.tflite --delegate edgetpu
  deeplab2-edge verify model.onnx --source demo
  deeplab2-edge verify street.tflite --source runs/street --data street/val --images 50

Without --source: the SHA-256 of the graph, the self test that the file carries, run
with this machine's runtime, and the certificate; TensorFlow is not needed. With
--source also the whole comparison with the checkpoint, and whether the file keeps what
its certificate promised. Exit code 1 if something does not hold.
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "verify",
        help="check a model file: digest, self test, and against its checkpoint",
        description="Checks that a converted model is whole, that this machine "
        "computes with it what the maker of the file computed, and, given the "
        "checkpoint, that it is as close to it as its certificate says.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "model", metavar="FILE", help="a .tflite or .onnx file made by `convert`"
    )
    parser.add_argument(
        "--source",
        metavar="CKPT",
        help="also compare with this checkpoint: archive, folder, prefix, or `demo`; "
        "needs TensorFlow",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="experiment of the checkpoint, or the name of a shipped recipe; default: "
        "config.textproto beside it",
    )
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="images to compare on; default: the synthetic scenes of the certificate",
    )
    parser.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="most images to compare on; default: as many as the certificate says",
    )
    add_threads_option(parser)
    add_engine_options(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from deeplab2_edge.convert.certificate import read_certificate
    from deeplab2_edge.errors import ModelFileError
    from deeplab2_edge.model_file import read_model_file
    from deeplab2_edge.runtime.check import check_model

    _check_arguments(args)
    model = read_model_file(args.model)
    try:
        certificate = read_certificate(model.metadata)
    except ModelFileError as error:
        raise ModelFileError(f"{args.model}: {error}") from None
    test = check_model(model, num_threads=args.threads, **engine_options(args))
    repetition = _repeat(args, model) if args.source else None
    was_equal = certificate is None or certificate.passed
    passed = test.passed and was_equal and (repetition is None or repetition.passed)
    if args.json:
        document = {
            "model": args.model,
            "passed": passed,
            "graph_sha256": model.metadata.graph_sha256,
            "format": model.format,
            "quantization": model.metadata.quantization,
            "self_test": test.to_json(),
            "certificate": certificate and certificate.to_json(),
            "comparison": repetition and repetition.to_json(),
        }
        print(json.dumps(document, indent=1))
        return 0 if passed else 1
    print(f"{args.model}: SHA-256 of the graph verified")
    _print_certificate(certificate)
    _print_self_test(test, certificate)
    if repetition is not None:
        _print_repetition(repetition, model)
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


def _check_arguments(args: argparse.Namespace) -> None:
    from deeplab2_edge.errors import UsageError

    for name in ("config", "data", "images"):
        if getattr(args, name) is not None and not args.source:
            raise UsageError(
                f"--{name} is for the comparison with a checkpoint: give --source too "
                "(or `deeplab2-edge evaluate` to measure against labels)"
            )


def _repeat(args: argparse.Namespace, model: "ModelFile") -> "Repetition":
    from deeplab2_edge.convert.repetition import repeat_comparison

    return repeat_comparison(
        model,
        args.source,
        config=args.config,
        data=args.data,
        num_images=args.images,
        num_threads=args.threads,
        quiet=args.quiet,
    )


def _print_certificate(certificate: "Certificate | None") -> None:
    from deeplab2_edge.convert.certificate import format_certificate

    if certificate is None:
        print(
            "certificate: none in this file; convert the checkpoint again, or compare "
            "with it: --source CKPT"
        )
        return
    print("certificate")
    for line in format_certificate(certificate, full=True).splitlines():
        print(f"  {line}")


def _print_self_test(test: "SelfTest", certificate: "Certificate | None") -> None:
    from deeplab2_edge.runtime.check import format_self_test

    maker = "" if certificate is None else certificate.machine.get("architecture", "")
    other = f", the file was made on {maker}" if maker and maker != test.machine else ""
    verdict = "passed" if test.passed else "FAILED"
    print(f"self test on {test.machine}: {verdict}{_plain(other)}")
    print(f"  {test.engine}")
    for note in test.engine.notes:
        print(f"  note: {_plain(note)}")
    print(format_self_test(test))
    if not test.has_golden:
        print(
            "  the file has no self test: its canvas is too large to carry one. It ran "
            "and its values are finite, no more. Compare with the checkpoint (--source "
            "CKPT), or convert at a smaller --input-size"
        )
    elif not test.passed:
        print(
            "  this runtime or delegate does not compute what the file's maker did: "
            "try without --delegate, update the runtime (`deeplab2-edge doctor`), or "
            "convert with --quantize none"
        )


def _print_repetition(repetition: "Repetition", model: "ModelFile") -> None:
    from deeplab2_edge.convert import format_verification

    print(format_verification(repetition.verification, model.metadata.quantization))
    for finding in repetition.findings:
        if finding.is_kept is False:
            print(f"broken: {finding.promise}, found {finding.found:.4g}")
    measured = [f.is_kept for f in repetition.findings if f.is_kept is not None]
    if repetition.findings:
        rest = len(repetition.findings) - len(measured)
        print(
            f"kept {sum(measured)} of {counted(len(measured), 'promise')} of the "
            "certificate"
            + (f"; {rest} cannot be measured, the file gives maps" if rest else "")
        )
    print(f"verdict now: {repetition.certificate.verdict}")
    for note in repetition.notes:
        print(f"note: {_plain(note)}")


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
