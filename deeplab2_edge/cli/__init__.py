"""The command line: `deeplab2-edge COMMAND ...`.

One file per command. Each has `add_parser(subparsers)` and `run(args) -> int`; a
file imports its room inside `run`, so that every `--help` answers at once.
"""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence

from deeplab2_edge.cli.arguments import add_import_option, run_own_file
from deeplab2_edge.errors import DeepLabEdgeError
from deeplab2_edge.version import __version__

# The order is the order of `--help`: the way of a user through the product.
COMMANDS = (
    "demo",
    "data",
    "recipes",
    "train",
    "evaluate",
    "convert",
    "run",
    "benchmark",
    "inspect",
    "verify",
    "models",
    "import_checkpoint",
    "doctor",
)
# They build a network, perhaps with a backbone of the user's own.
_WITH_OWN_FILES = (
    "recipes",
    "train",
    "evaluate",
    "convert",
    "run",
    "verify",
    "models",
    "import-checkpoint",
)

_EXAMPLES = """\
examples:
  deeplab2-edge demo
  deeplab2-edge convert --quantize int8
  deeplab2-edge run model.tflite photo.jpg --output results/
  deeplab2-edge benchmark model.tflite --threads 1,2
"""


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of all commands without importing any heavy package."""
    parser = argparse.ArgumentParser(
        prog="deeplab2-edge",
        description="Dense labeling of pixels, from server training to small devices.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"deeplab2_edge.cli.{name}")
        module.add_parser(subparsers)
    for name in _WITH_OWN_FILES:
        add_import_option(subparsers.choices[name])
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 on success, 1 when a check found problems (`data check`, `verify`, `doctor`),
        2 on a user's mistake, 130 on Ctrl-C, 141 if nobody reads the output any more.
    """
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # a pipe may be found broken only now
    except BrokenPipeError:
        return _stop_printing()


def _run(argv: Sequence[str] | None) -> int:
    args = build_parser().parse_args(argv)
    try:
        for path in getattr(args, "imports", ()):
            run_own_file(path)
        return int(args.run(args))
    except DeepLabEdgeError as error:
        print(f"deeplab2-edge {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _stop_printing() -> int:
    """Ends quietly: `deeplab2-edge models | head` is not an error.

    The signal SIGPIPE would do so as well, but also end the command when a browser
    leaves a live view.
    """
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return 128 + 13  # what a shell says of a command that SIGPIPE ended
