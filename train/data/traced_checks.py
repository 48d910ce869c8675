"""Checks of data inside the traced pipeline, and their way out as plain errors."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from deeplab2_edge.errors import DataError
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="train")

# What TensorFlow puts before a reason: where in the graph it was found.
_PLACE = re.compile(
    r"\{\{.*?\}\} |Error in user-defined function passed to .*? with iterator: \S+: "
)
_ASSERTION = re.compile(
    r"assertion failed: \[(.*?)\](?: \[Op:|\n|\s*\[\[|$)", re.DOTALL
)


def check(condition: Any, *sentence: Any) -> Any:
    """Stops the pipeline with a sentence if a condition does not hold.

    Args:
        condition: Scalar bool tensor.
        sentence: Strings, and scalar tensors to be shown between them.

    Returns:
        The operation that does it; None where it is done at once.
    """
    parts = [
        part if isinstance(part, str) or part.dtype == tf.string else tf.as_string(part)
        for part in sentence
    ]
    return tf.debugging.Assert(condition, [tf.strings.join(parts)])


def pass_if(condition: Any, values: Any, *sentence: Any) -> Any:
    """Passes values on after a `check`: nothing made of them can fail before it."""
    assertion = check(condition, *sentence)
    with tf.control_dependencies([] if assertion is None else [assertion]):
        return tf.nest.map_structure(tf.identity, values)


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
        first_line = str(error.message).partition("\n")[0]
        reason = found.group(1) if found else _PLACE.sub("", first_line)
        raise DataError(f"the input pipeline stopped: {reason}") from None
