"""What the parsers of the commands share."""

import argparse
import re
from typing import Any

from deeplab2_edge.errors import UsageError


def add_command(
    subparsers: Any, name: str, *, help: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """Adds a parser whose help ends with examples, printed as they are written.

    Returns:
        The parser, to which the command adds its arguments.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=help,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


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
