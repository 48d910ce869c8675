"""Types of command-line arguments that several commands share."""

import argparse
import re


def parse_size(text: str) -> tuple[int, int]:
    """Reads `HxW`, for example `257x513`."""
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected HEIGHTxWIDTH in pixels, for example 257x513"
        )
    return int(match[1]), int(match[2])
