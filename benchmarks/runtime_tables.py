"""Tables of what was measured of the runtime."""

from collections.abc import Sequence
from typing import Any

from benchmarks.markdown import machine, megabytes, section, size, table

_MODES = {"none": "float32", "int8": "int8"}
# Way of `benchmarks/end_to_end.py` -> what a reader knows it as.
_WAYS = {
    "runtime": "deeplab2-edge",
    "onnx": "deeplab2-edge, ONNX Runtime",
    "python": "deeplab2-edge without the native core",
    "tflite + tensorflow": "TFLite, merged in TensorFlow",
    "saved-model": "SavedModel, merged in TensorFlow",
}


def format_end_to_end(document: dict[str, Any]) -> str:
    """Formats what `benchmarks/end_to_end.py` writes."""
    return section(
        "### From a JPEG to the overlay",
        f"`{document['command']}`, {document['rounds']} rounds in turn, each way in a "
        "process of its own with as many cores as threads. Times as fast: against the "
        "SavedModel in the same round. Merging: with one thread.",
        f"Machine: {machine(document)}.",
        table(
            [
                *("network", "canvas", "things", "way", "weights"),
                *("1 thread, ms", "times as fast", "2 threads, ms", "times as fast"),
                *("merging, of the network", "peak MB"),
            ],
            (_end_to_end(rows) for rows in _by_threads(document["rows"])),
        ),
    )


def _by_threads(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Puts rows that differ in threads alone together."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = row["network"], tuple(row["canvas"]), row["way"], row["mode"]
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _end_to_end(rows: Sequence[dict[str, Any]]) -> list[str]:
    first = rows[0]
    cells = [
        *(first["network"], size(first["canvas"]), str(first["things"])),
        *(_WAYS[first["way"]], _MODES[first["mode"]]),
    ]
    for row in rows:
        cells += [f"{row['ms']:.1f}", f"{row['times_as_fast']:.2f}"]
    share = first.get("merge_share")
    merging = "" if share is None else f"{100 * share:.1f} %"
    return [*cells, merging, megabytes(rows[-1]["peak_memory_bytes"])]


def format_merging(document: dict[str, Any]) -> str:
    """Formats what `benchmarks/merging.py` writes."""
    ways = {
        "numpy": "NumPy",
        "tensorflow": "TensorFlow",
        "tflite": "graph, TFLite",
        "onnx": "graph, ONNX",
    }
    return section(
        "### Merging: heads to the panoptic map of the image",
        f"`{document['command']}`, {document['classes']} classes, {document['rounds']} "
        "rounds in turn, one thread. How many times as long each way takes as the "
        "native core, and the memory that loading and running it once takes, in maps.",
        f"Machine: {machine(document)}.",
        table(
            ["canvas", "centers", "heads", "native, ms", *ways.values()],
            (
                [
                    *(row["canvas"], str(row["centers"])),
                    "int8" if row["is_integer"] else "float32",
                    f"{row['milliseconds']['native']:.2f}{_maps(row, 'native')}",
                    *(
                        f"{row['ratio_to_native'][way]:.1f}{_maps(row, way)}"
                        for way in ways
                    ),
                ]
                for row in document["rows"]
            ),
        ),
        "The native core against the number of centers, milliseconds of the processor, "
        "float32 heads, one thread:",
        table(
            ["canvas", *document["against_centers"][0]["processor_milliseconds"]],
            (
                [
                    row["canvas"],
                    *(f"{ms:.2f}" for ms in row["processor_milliseconds"].values()),
                ]
                for row in document["against_centers"]
            ),
        ),
    )


def _maps(row: dict[str, Any], way: str) -> str:
    return f", {row['extra_bytes'][way] / row['map_bytes']:.1f} maps"


def format_native(document: dict[str, Any]) -> str:
    """Formats what `benchmarks/native.py` writes."""
    return section(
        "### The native core beside merging",
        f"`{document['command']}`, {document['rounds']} rounds in turn, one thread, "
        "milliseconds of the processor.",
        f"Machine: {machine(document)}.",
        table(
            ["canvas", "task", "NumPy, ms", "native, ms", "times as fast"],
            (
                [
                    *(size(row["canvas"]), f"`{row['task']}`"),
                    *(f"{row[way + '_ms']:.2f}" for way in ("numpy", "native")),
                    f"{row['ratio']:.1f}",
                ]
                for row in document["rows"]
            ),
        ),
    )


def format_pipeline(document: dict[str, Any]) -> str:
    """Formats what `benchmarks/pipeline.py` writes."""
    memory = document["memory"]
    first, last = memory["resident_bytes"][0], memory["resident_bytes"][-1]
    return section(
        "### Video: one frame after the other, and overlapped",
        f"`{document['command']}`: from a file of {document['video']} to an overlay "
        f"video, {document['model']}, {document['frames']} frames, "
        f"{document['rounds']} rounds in turn.",
        f"Machine: {machine(document)}.",
        table(
            [
                *("cores", "threads", "frames/s in turn", "overlapped", "speedup"),
                *("processor, ms a frame", "overlapped"),
            ],
            (
                [
                    *(str(row["cores"]), str(row["threads"])),
                    f"{row['sequential_fps']:.1f}",
                    f"{row['overlapped_fps']:.1f}",
                    f"{row['speedup']:.2f}",
                    f"{row['sequential_cpu_ms']:.1f}",
                    f"{row['overlapped_cpu_ms']:.1f}",
                ]
                for row in document["rows"]
            ),
        ),
        f"Memory of the process over {memory['frames']} frames: {megabytes(first)} MB "
        f"after {memory['every']}, {megabytes(last)} MB at the end.",
    )


def format_limit(document: dict[str, Any]) -> str:
    """Formats what `benchmarks/limit.py` writes."""
    return section(
        "### How near the networks are to the machine's limit",
        f"`{document['command']}`. Peak: LiteRT on the best of the ideal layers below. "
        "Losses: the three kinds of operators with the most time beyond what their "
        "multiply-adds take at the peak, in percent of the network's time.",
        f"Machine: {machine(document)}.",
        table(
            ["ideal layer, GMAC/s", *_peak_columns(document)],
            (
                [layer, *(f"{rate:.0f}" for rate in _peaks(document, layer))]
                for layer in document["gmac_per_second"]["float32"]
            ),
        ),
        table(
            [
                *("network", "canvas", "weights", "threads", "GMAC", "ms"),
                *("of peak", "largest losses"),
            ],
            (
                [
                    *(row["network"], size(row["canvas"]), _MODES[row["mode"]]),
                    *(str(row["threads"]), f"{row['gmac']:.1f}", f"{row['ms']:.0f}"),
                    f"{100 * row['share_of_peak']:.0f} %",
                    ", ".join(
                        f"{kind} {100 * row['kinds'][kind]['loss_ms'] / row['ms']:.0f}"
                        for kind in row["largest_losses"]
                    ),
                ]
                for row in document["rows"]
            ),
        ),
    )


def _peak_columns(document: dict[str, Any]) -> list[str]:
    return [
        f"{dtype}, {threads} thread{'s' if int(threads) > 1 else ''}"
        for dtype, layers in document["gmac_per_second"].items()
        for threads in next(iter(layers.values()))
    ]


def _peaks(document: dict[str, Any], layer: str) -> list[float]:
    return [
        rate
        for layers in document["gmac_per_second"].values()
        for rate in layers[layer].values()
    ]


def format_frontier(document: dict[str, Any]) -> str:
    """Formats what `benchmarks/frontier.py` writes."""
    rows = sorted(document["rows"].values(), key=lambda row: -row["ms"]["1"])
    return section(
        f"`{document['command']}`: {rows[0]['num_images']} images, int8. Milliseconds "
        "from a decoded image to its segments.",
        f"Machine: {machine(document)}.",
        table(
            [
                *("network", "canvas", "PQ", "mIoU", "MB"),
                *("1 thread, ms", "of the slowest", "2 threads, ms", "frontier"),
            ],
            (
                [
                    *(row["network"], row["canvas"]),
                    *(f"{row['percent'][name]:.1f}" for name in ("pq", "miou")),
                    f"{row['file_bytes'] / 1e6:.1f}",
                    f"{row['ms']['1']:.1f}",
                    f"{100 * row['share_of_slowest']['1']:.0f} %",
                    f"{row['ms']['2']:.1f}",
                    "yes" if row["is_on_frontier"] else "",
                ]
                for row in rows
            ),
        ),
    )
