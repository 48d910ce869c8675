"""What is the graph of each family made of, and which form of attention is faster?

Converts the small recipes of the synthetic street world to float TFLite files, counts
their ops, and times those with attention in both forms, in turn (A B A B ...) so that a
drifting machine hits both alike. Times are those of the processor, one thread. Weights
are as before training: they decide neither about ops nor about time.

    python -m benchmarks.graph_forms [--recipes NAME ...] [--input-size 129x257]
"""

import argparse
import collections
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from deeplab2_edge.cli.arguments import parse_size
from deeplab2_edge.config import ExperimentOptions, load_config
from deeplab2_edge.convert.export import export_graph
from deeplab2_edge.convert.forms import AXIAL_FORMS, Forms
from deeplab2_edge.convert.quiet import quiet_native_notes
from deeplab2_edge.experiments import find_recipe, recipe_names
from deeplab2_edge.files import atomic_write
from deeplab2_edge.models import build_model
from deeplab2_edge.optional import require
from deeplab2_edge.runtime.machine import describe_machine
from deeplab2_edge.tflite_file.graph import read_graph

tf: Any = require("tensorflow", extra="convert")

_WORLD = "synthetic_street_"
_DEFAULT_OUTPUT = Path(__file__).parent / "results" / "graph_forms.json"


def main() -> None:
    """Converts, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", metavar="NAME")
    parser.add_argument("--input-size", type=parse_size, default=(129, 257))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=_DEFAULT_OUTPUT)
    args = parser.parse_args()
    names = args.recipes or [n for n in recipe_names() if n.startswith(_WORLD)]
    rows = []
    for name in names:
        for row in _measure(name, args.input_size, args.rounds):
            rows.append(row)
            print(json.dumps(row), flush=True)
    document = {
        "benchmark": "graph_forms",
        "input_size": list(args.input_size),
        "machine": describe_machine(),
        "rows": rows,
    }
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _measure(recipe: str, size: tuple[int, int], rounds: int) -> list[dict[str, Any]]:
    config = load_config(find_recipe(recipe))
    rows, files = [], {}
    for axial in AXIAL_FORMS:
        content = _convert(config, size, Forms(axial=axial))
        graph = read_graph(content)
        counts = collections.Counter(op.name for op in graph.ops)
        if axial == AXIAL_FORMS[0] and "SOFTMAX" not in counts:
            return [_row(recipe, None, content, graph, counts)]
        rows.append(_row(recipe, axial, content, graph, counts))
        files[axial] = content
    for row, times in zip(rows, _interleave(files, rounds).values(), strict=True):
        row["median_ms"] = round(1e3 * statistics.median(times), 2)
    return rows


def _row(
    recipe: str, axial: str | None, content: bytes, graph: Any, counts: Any
) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "axial": axial,
        "bytes": len(content),
        "max_rank": max(
            len(tensor.shape)
            for op in graph.ops
            for tensor in (*op.outputs, *op.inputs)
            if tensor is not None
        ),
        "num_ops": sum(counts.values()),
        "ops": dict(counts.most_common()),
    }


def _convert(config: ExperimentOptions, size: tuple[int, int], forms: Forms) -> bytes:
    with quiet_native_notes():
        model = build_model(
            config, input_size=size, batch_size=1, **forms.build_options()
        )
        exported = export_graph(model, config, for_integers=False, forms=forms)
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [exported.function], exported.module
        )
        return bytes(converter.convert())


def _interleave(files: dict[str, bytes], rounds: int) -> dict[str, list[float]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreters = {
        form: Interpreter(model_content=content, num_threads=1)
        for form, content in files.items()
    }
    for interpreter in interpreters.values():
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            grey = np.full(detail["shape"], 128, detail["dtype"])
            interpreter.set_tensor(detail["index"], grey)
        interpreter.invoke()
    seconds: dict[str, list[float]] = {form: [] for form in files}
    for _ in range(rounds):
        for form, interpreter in interpreters.items():
            start = time.process_time()
            interpreter.invoke()
            seconds[form].append(time.process_time() - start)
    return seconds


if __name__ == "__main__":
    main()
