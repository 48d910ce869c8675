"""Opens one file after the other and says what came of it.

`python -m tests.fuzz.worker MODE` reads paths, one a line, and writes a JSON line for
each. It is a process of its own because a runtime that is given damaged files may
crash or hang.
"""

import hashlib
import json
import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DeepLabEdgeError
from deeplab2_edge.images import read_image
from deeplab2_edge.model_file import is_picture, read_model_file
from deeplab2_edge.runtime.check import check_model
from deeplab2_edge.runtime.engine import open_engine

MAX_MEMORY = 4 << 30

Answer = list[NDArray[Any]]


def answer_of_ours(path: Path) -> Answer:
    """Opens a file as everyone does who uses the package."""
    engine = open_engine(path, num_threads=1)
    inputs = {
        name: _picture(spec.shape)
        if is_picture(name)
        else np.zeros(spec.shape, np.float32)
        for name, spec in engine.metadata.inputs.items()
    }
    found = engine.run(inputs)
    return [found[name] for name in sorted(found)]


def answer_of_bare_runtime(path: Path) -> Answer:
    """Gives a file to its runtime as it is, as programs without checks do."""
    if path.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(path), options)
        feeds = {i.name: _picture(i.shape) for i in session.get_inputs()}
        return list(session.run(None, feeds))
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():
        values = _picture(tuple(details["shape"])).astype(details["dtype"])
        interpreter.set_tensor(details["index"], values)
    interpreter.invoke()
    return [
        interpreter.get_tensor(output["index"])
        for output in interpreter.get_output_details()
    ]


def pixels_of_image(path: Path) -> Answer:
    """Reads an image file as everyone does who uses the package."""
    return [read_image(path)]


MODES: dict[str, Callable[[Path], Answer]] = {
    "ours": answer_of_ours,
    "bare": answer_of_bare_runtime,
    "image": pixels_of_image,
}


def judge(path: Path, mode: str) -> dict[str, Any]:
    """Opens and runs a file.

    Returns:
        `outcome`: `refused` with its `message`, `foreign` for an error that is not
        ours, or `ran` with the `digest` of the answer, whether it `is_finite` and
        whether its self test is `passed`.
    """
    try:
        answer = MODES[mode](path)
        passed = check_model(read_model_file(path)).passed if mode == "ours" else None
    except DeepLabEdgeError as error:
        return {"outcome": "refused", "message": str(error)}
    except Exception as error:
        kind = "refused" if mode == "bare" else "foreign"
        return {"outcome": kind, "message": f"{type(error).__name__}: {error}"[:500]}
    digest = hashlib.sha256()
    for values in answer:
        digest.update(f"{values.dtype}{values.shape}".encode() + values.tobytes())
    return {
        "outcome": "ran",
        "digest": digest.hexdigest(),
        "is_finite": bool(all(np.isfinite(values).all() for values in answer)),
        "passed": passed,
    }


def _picture(shape: Sequence[int]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def main() -> None:
    """Works until there are no more paths."""
    mode = sys.argv[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # runtimes print there
    for line in sys.stdin:
        print(json.dumps(judge(Path(line.strip()), mode)), file=replies, flush=True)


if __name__ == "__main__":
    main()
