"""Checks of data inside the traced pipeline, and their way out as plain errors."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from deeplab2_edge.errors import DataError
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="train")

_ASSERTION = re.compile(
    r"assertion failed: \[(.*?)\](?: \[Op:|\n|\s*\[\[|$)", re.DOTALL
)


def check(condition: Any, *sentence: Any) -> None:
    """Stops the pipeline with a sentence if a condition does not hold.

    Args:
        condition: Scalar bool tensor.
        sentence: Strings, and scalar tensors to be shown between them.
    """
    parts = [
        part if isinstance(part, str) or part.dtype == tf.string else tf.as_string(part)
        for part in sentence
    ]
    tf.debugging.Assert(condition, [tf.strings.join(parts)])


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turns what TensorFlow says about a bad record into a `DataError`.

    To be put around `next(batches)`. The end of the data passes through.

    Raises:
        DataError: Instead of `tf.errors.OpError`.
    """
    try:
        yield
    except tf.errors.OutOfRangeError:
        raise
    except tf.errors.OpError as error:
        found = _ASSERTION.search(error.message or "")
        reason = found.group(1) if found else str(error.message).split("\n")[0]
        raise DataError(f"the input pipeline stopped: {reason}") from None
