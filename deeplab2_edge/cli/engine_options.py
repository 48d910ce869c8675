"""Options of the commands that open a model file with an engine."""

import argparse
from collections.abc import Sequence
from typing import Any

from deeplab2_edge.errors import UsageError

# As runtime.runtimes.RUNTIME_NAMES, which would load NumPy here; a test compares.
RUNTIME_NAMES = ("ai-edge-litert", "tflite-runtime", "tensorflow", "onnxruntime")


def add_threads_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--threads`, one number; `benchmark` takes several."""
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="of the interpreter (default: the usable cores, at most 4)",
    )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--delegate`, `--delegate-option` and `--runtime`."""
    parser.add_argument(
        "--delegate",
        metavar="NAME",
        help="of TFLite files: edgetpu, gpu, xnnpack, cpu, or the path of a library "
        "(default: edgetpu for files compiled for it, else the CPU)",
    )
    parser.add_argument(
        "--delegate-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="for the delegate's library, such as device=usb; repeatable",
    )
    parser.add_argument(
        "--runtime",
        choices=RUNTIME_NAMES,
        help="default: the first that is installed and runs the file",
    )


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """Gives what `runtime.open_engine` takes.

    Raises:
        UsageError: If an option is not KEY=VALUE.
    """
    return {
        "delegate": args.delegate,
        "delegate_options": parse_options(args.delegate_option),
        "runtime": args.runtime,
    }


def parse_options(texts: Sequence[str]) -> dict[str, str]:
    """Reads options of a delegate.

    Raises:
        UsageError: If one is not KEY=VALUE, or is given twice.
    """
    options: dict[str, str] = {}
    for text in texts:
        key, found, value = text.partition("=")
        if not key or not found:
            raise UsageError(f"--delegate-option is {text!r}; expected KEY=VALUE")
        if key in options:
            raise UsageError(f"--delegate-option {key} is given twice")
        options[key] = value
    return options
