"""Optional packages, imported at the first line that needs them."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from deeplab2_edge.errors import MissingExtraError

# tf_keras and tensorflow must agree on Keras 2, whoever is imported first.
_ENVIRONMENT = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}


def require(module: str, *, extra: str) -> Any:
    """Imports an optional package, or says which extra brings it.

    Args:
        module: Dotted name, for example `"tensorflow"`.
        extra: The extra of this distribution that installs it.

    Raises:
        MissingExtraError: If the package is not installed.
    """
    root = module.split(".")[0]
    try:
        if root in ("tensorflow", "tf_keras") and "tensorflow" not in sys.modules:
            _import_tensorflow()
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (root, "tensorflow"):
            raise
        raise MissingExtraError(
            f"this needs the package {module!r}, which is not installed; "
            f"run: pip install 'deeplab2-edge[{extra}]'"
        ) from None


def _import_tensorflow() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with _quiet_stderr():
        tensorflow = importlib.import_module("tensorflow")
        # The look for accelerators is what complains of machines that have none.
        tensorflow.config.list_physical_devices()


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hides what native code prints: TensorFlow starts with notes on every build flag.

    Errors of the import itself are Python exceptions and come through.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
