"""`deeplab2-edge doctor`: what is here, what a model would use of it, and why."""

import argparse
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
import platform
import sys
from typing import Any

from deeplab2_edge.cli.arguments import add_command
from deeplab2_edge.cli.engine_options import (
    add_engine_options,
    add_threads_option,
    engine_options,
)
from deeplab2_edge.version import __version__

_EPILOG = """\
With a model: which runtime and delegate run it and why, whether it computes here what
its maker computed, and how long one run of the network takes. Exit code 1 if something
is missing that `deeplab2-edge run` needs, or the model fails its self test.

examples:
  deeplab2-edge doctor
  deeplab2-edge doctor model.tflite
  deeplab2-edge doctor model_edgetpu.tflite --delegate edgetpu
  deeplab2-edge doctor model.tflite --json
"""

_OLDEST_PYTHON = (3, 10)


@dataclasses.dataclass(frozen=True)
class _Package:
    """Is one thing to look for.

    Attributes:
        title: As people call it.
        modules: (module, distribution); the first that is there counts.
        needed_for: Commands that need it.
        install: The line that brings it.
        is_required: Whether `run` needs it.
        is_light: Import it to see that it works; else only look whether it is there,
            since TensorFlow takes many seconds.
    """

    title: str
    modules: tuple[tuple[str, str], ...]
    needed_for: str
    install: str
    is_required: bool = False
    is_light: bool = False


_PACKAGES = (
    _Package(
        "NumPy", (("numpy", "numpy"),), "everything", "pip install numpy", True, True
    ),
    _Package(
        "OpenCV",
        (
            ("cv2", "opencv-python"),
            ("cv2", "opencv-python-headless"),
            ("cv2", "opencv-contrib-python"),
            ("cv2", "opencv-contrib-python-headless"),
        ),
        "everything",
        "pip install opencv-python",
        True,
        True,
    ),
    _Package(
        "TFLite interpreter",
        (
            ("ai_edge_litert.interpreter", "ai-edge-litert"),
            ("tflite_runtime.interpreter", "tflite-runtime"),
        ),
        "run, benchmark, inspect",
        "pip install ai-edge-litert  (32-bit ARM: pip install tflite-runtime "
        "'numpy<2', up to Python 3.11; with a newer one use the 64-bit OS)",
        True,
        True,
    ),
    _Package(
        "TensorFlow",
        (("tensorflow", "tensorflow"), ("tensorflow", "tensorflow-cpu")),
        "train, evaluate, convert",
        "pip install 'deeplab2-edge[train,convert]'",
    ),
    _Package(
        "tf_keras",
        (("tf_keras", "tf-keras"),),
        "train, evaluate, convert",
        "pip install 'deeplab2-edge[train,convert]'",
    ),
)


def add_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        subparsers,
        "doctor",
        help="show what is installed, what this board has, and what a model would use",
        description="Checks this installation and this board.",
        examples=_EPILOG,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a file made by `deeplab2-edge convert`, to open and run as `run` would",
    )
    add_threads_option(parser)
    add_engine_options(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document instead of text"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Reports; returns 1 if something needed is missing or the model fails."""
    checks = [_check_python(), *(_check_package(package) for package in _PACKAGES)]
    is_healthy = all(check["ok"] for check in checks if check["required"])
    board: dict[str, Any] = {}
    if is_healthy:  # what follows needs these packages
        from deeplab2_edge.runtime import diagnosis

        board = {
            "board": diagnosis.describe_board(),
            "runtimes": diagnosis.describe_runtimes(),
            "delegates": diagnosis.describe_delegates(),
            "native_core": diagnosis.describe_native(),
        }
    model = _diagnose(args) if is_healthy and args.model else None
    passed = is_healthy and (model is None or model["self_test"]["passed"])
    if args.json:
        document = {
            "ok": passed,
            "version": __version__,
            "system": platform.platform(),
            "checks": checks,
            **board,
            "model": model,
        }
        print(json.dumps(document, indent=1))
        return 0 if passed else 1
    print(f"deeplab2-edge {__version__} on {platform.platform()}")
    _print_checks(checks)
    if board:
        from deeplab2_edge.cli.doctor_report import print_board, print_model

        print_board(**board)
        if model is not None:
            print_model(model)
    if passed:
        print("ready: deeplab2-edge run MODEL INPUT")
    return 0 if passed else 1


def _diagnose(args: argparse.Namespace) -> dict[str, Any]:
    from deeplab2_edge.model_file import read_model_file
    from deeplab2_edge.runtime.diagnosis import diagnose_model

    report, facts, test = diagnose_model(
        read_model_file(args.model), num_threads=args.threads, **engine_options(args)
    )
    return {
        "path": args.model,
        "engine": report.to_dict(),
        **facts,
        "self_test": test.to_json(),
    }


def _print_checks(checks: list[dict[str, Any]]) -> None:
    for check in checks:
        mark = "ok" if check["ok"] else ("MISSING" if check["required"] else "-")
        print(f"  {mark:<8}{check['name']:<20}{check['found'] or 'not installed'}")
    for check in checks:
        if not check["ok"]:
            print(f"{check['name']} is for {check['needed_for']}: {check['install']}")


def _check_python() -> dict[str, Any]:
    return {
        "name": "Python",
        "ok": sys.version_info >= _OLDEST_PYTHON,
        "required": True,
        "found": platform.python_version(),
        "needed_for": "everything",
        "install": "use Python 3.10 or newer",
    }


def _check_package(package: _Package) -> dict[str, Any]:
    is_found, found = _find(package)
    return {
        "name": package.title,
        "ok": is_found,
        "required": package.is_required,
        "found": found,
        "needed_for": package.needed_for,
        "install": package.install,
    }


def _find(package: _Package) -> tuple[bool, str | None]:
    """Says whether a package works, and what was found."""
    for module, distribution in package.modules:
        if importlib.util.find_spec(module.split(".")[0]) is None:
            continue
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        if package.is_light:
            reason = _why_broken(module)
            if reason:
                return False, f"{distribution} {version}, broken: {reason}"
            if distribution == "tflite-runtime" and _has_numpy_2():
                # It can be imported, and dies in its first call.
                reason = "does not work with NumPy 2, run: pip install 'numpy<2'"
                return False, f"{distribution} {version}, broken: {reason}"
        return True, f"{distribution} {version}"
    # Debian's OpenCV is a module, but no distribution that pip knows of.
    module = package.modules[0][0]
    if package.is_light and importlib.util.find_spec(module.split(".")[0]) is not None:
        reason = _why_broken(module)
        if reason:
            return False, f"{module} of the system, broken: {reason}"
        version = getattr(sys.modules[module], "__version__", "of unknown version")
        return True, f"{module} {version} of the system"
    return False, None


def _why_broken(module: str) -> str | None:
    """Imports a module; says why it cannot be, None if it can."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken binary can raise anything
        return " ".join(str(error).split())[:120] or type(error).__name__
    return None


def _has_numpy_2() -> bool:
    version: str = importlib.import_module("numpy").__version__
    return int(version.split(".")[0]) >= 2
