"""What the parsers of the commands share."""

import argparse
import importlib.util
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deeplab2_edge.errors import DeepLabEdgeError, UsageError


def add_command(
    subparsers: Any,
    name: str,
    *,
    help: str,
    description: str,
    examples: str,
    aliases: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """Adds a parser whose help ends with examples, printed as they are written.

    Returns:
        The parser, to which the command adds its arguments.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        aliases=aliases,
        help=help,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--import`, for files that `run_own_file` runs before the command."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="FILE",
        help="run a Python file of your own first, for example one that registers a "
        "backbone; repeatable",
    )


def add_set_option(parser: argparse.ArgumentParser, help: str) -> None:
    """Adds `--set`, whose texts `cli.experiments.load_experiment` takes."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help=help
    )


def run_own_file(path: str) -> None:
    """Runs a Python file that the user named.

    Raises:
        UsageError: If there is no such file, or it fails; the message names the line.
    """
    if not Path(path).exists():
        raise UsageError(f"--import is {path!r}: no such file")
    if not (path.endswith(".py") and Path(path).is_file()):
        raise UsageError(f"--import is {path!r}; expected a Python file, NAME.py")
    # Under its plain name it could hide a package.
    name = f"imported:{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except DeepLabEdgeError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == spec.origin]
        if isinstance(error, SyntaxError) and not lines:
            lines = [error.lineno]
        place = f"{path}:{lines[-1]}" if lines and lines[-1] else path
        text = " ".join(str(error).split())  # some write several lines
        raise UsageError(f"{place}: {type(error).__name__}: {text}") from error


def parse_size(text: str) -> tuple[int, int]:
    """Reads `HxW`, for example `257x513`."""
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected HEIGHTxWIDTH in pixels, for example 257x513"
        )
    return int(match[1]), int(match[2])


def check_size(size: tuple[int, int], output_stride: int, option: str) -> None:
    """Refuses a canvas that a network of this output stride cannot take.

    Raises:
        UsageError: If a side is not k * output_stride + 1; the message names the
            nearest sizes that fit.
    """
    from deeplab2_edge.config.sizes import expected_size, fits_stride

    if not fits_stride(size, output_stride):
        raise UsageError(
            f"{option} is {size[0]}x{size[1]} (height x width); expected "
            f"{expected_size(size, output_stride, as_option=True)}"
        )
