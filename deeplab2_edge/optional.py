"""Optional packages, imported at the first line that needs them."""

import importlib
import os
from types import ModuleType

from deeplab2_edge.errors import MissingExtraError

# tf_keras and tensorflow must agree on Keras 2, whoever is imported first.
_ENVIRONMENT = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}


def require(module: str, *, extra: str) -> ModuleType:
    """Imports an optional package, or says which extra brings it.

    Args:
        module: Dotted name, for example `"tensorflow"`.
        extra: The extra of this distribution that installs it.

    Raises:
        MissingExtraError: If the package is not installed.
    """
    if module.split(".")[0] in ("tensorflow", "tf_keras"):
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"this needs the package {module!r}, which is not installed; "
            f"run: pip install 'deeplab2-edge[{extra}]'"
        ) from None
