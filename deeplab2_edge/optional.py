"""Optional packages, imported at the first line that needs them."""

import importlib
import os
import sys
from typing import Any

from deeplab2_edge.errors import MissingExtraError
from deeplab2_edge.stderr import hidden_stderr

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
    with hidden_stderr():
        tensorflow = importlib.import_module("tensorflow")
        # The look for accelerators is what complains of machines that have none.
        tensorflow.config.list_physical_devices()
