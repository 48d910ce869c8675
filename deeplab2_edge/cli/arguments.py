"""What the parsers of the commands share."""

import argparse
import re
from typing import Any


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
