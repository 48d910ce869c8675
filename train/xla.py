"""Faults of compiling a step with XLA, said in words."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from deeplab2_edge.errors import UsageError
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")

# As TensorFlow names them: `UniqueV2 (No registered 'UniqueV2' OpKernel for ...`.
_UNSUPPORTED = re.compile(r"(\w+) \(No registered '")
_NODE = re.compile(r"\{\{node ([^}]+)\}\}")
# Words that only messages about compilation have.
_WORDS = ("XLA", "compile-time constant", "must be a compile")


def check_replicas(num_replicas: int) -> None:
    """Refuses to compile the step of several replicas of one process.

    Raises:
        UsageError: If there is more than one.
    """
    if num_replicas > 1:
        raise UsageError(
            f"--xla compiles the step of one replica; this run has {num_replicas}: "
            "leave --xla out, or take --strategy one (a TPU compiles in any case)"
        )


@contextlib.contextmanager
def readable_compile_errors() -> Iterator[None]:
    """Names the operations that XLA cannot compile.

    Raises:
        UsageError: Instead of what TensorFlow says about them.
    """
    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
        message = str(error.message)
        if not any(word in message for word in _WORDS):
            raise
        operations = sorted(set(_UNSUPPORTED.findall(message)))
        nodes = sorted(set(_NODE.findall(message)))[:3]
        what = ", ".join(operations) or message.splitlines()[0]
        where = f" (at {', '.join(nodes)})" if nodes else ""
        raise UsageError(
            f"--xla: XLA cannot compile {what}{where}; train without --xla"
        ) from None
