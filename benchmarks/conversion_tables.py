"""Tables of what conversions cost and bring."""

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.markdown import machine, megabytes, section, table

# Metrics of the families, by the names of `benchmarks/families.py`.
_METRICS = {"pq": "PQ", "miou": "mIoU", "stq": "STQ", "vpq": "VPQ", "abs_rel": "depth"}


def format_conversion(place: str) -> Callable[[dict[str, Any]], str]:
    """Gives what formats a file of `benchmarks/conversion.py`."""

    def form(document: dict[str, Any]) -> str:
        return section(
            f"### Ways to convert: {place}, {document['num_images']} images",
            f"`{document['command']}`. PQ and mIoU in percent; ratio: time of the "
            "network against float32 TFLite in the same round, with one thread. QAT's "
            "seconds are without its training, which had been done.",
            f"Machine: {machine(document)}.",
            table(
                [
                    *("file", "PQ", "PQ lost", "mIoU", "mIoU lost", "MB"),
                    *("ms", "ratio", "converted in s", "peak MB"),
                ],
                _rows(document["rows"]),
            ),
        )

    return form


def _rows(rows: dict[str, Any]) -> Iterator[list[str]]:
    base = rows["float"]["percent"]
    for name, row in rows.items():
        figures = row["percent"]
        cells = [name]
        for metric in ("pq", "miou"):
            lost = base[metric] - figures[metric]
            cells.append(f"{figures[metric]:.2f}")
            cells.append(f"{lost:+.2f}" if row["percent"] is not base else "")
        if "file_bytes" not in row:  # the checkpoint
            yield [*cells, *[""] * 5]
            continue
        yield [
            *cells,
            f"{row['file_bytes'] / 1e6:.1f}",
            f"{row['network_ms']:.1f}",
            f"{row['ratio']:.2f}",
            str(row["convert_seconds"]),
            megabytes(row["convert_peak_bytes"]),
        ]


def format_conversion_families(document: dict[str, Any]) -> str:
    """Formats what `benchmarks/conversion_families.py` writes."""
    return section(
        "### Every family, converted: equality with the source, and int8-mixed",
        f"`{document['command']}`. Error: largest absolute difference of a head over "
        "its standard deviation, worst head. Metrics in percent, float → int8-mixed, "
        "the relative error of depth too.",
        table(
            ["recipe", "TFLite error", "ONNX error", "int8-mixed, MB", "float → mixed"],
            (
                [
                    f"`{recipe}`",
                    *(_worst(files.get(f"{kind} none")) for kind in ("tflite", "onnx")),
                    *_mixed(files.get("tflite int8-mixed")),
                ]
                for recipe, files in sorted(document["rows"].items())
            ),
        ),
    )


def format_conversion_cost(document: dict[str, Any]) -> str:
    """Formats what `benchmarks/conversion_cost.py` writes."""
    return section(
        "### What a conversion takes, from the checkpoint to the verified file",
        f"`{document['command']}`, {document['calibration_images']} calibration "
        f"images. Machine: {machine(document)}.",
        table(
            ["recipe", "canvas", "file", "seconds", "peak MB", "MB"],
            (
                [
                    f"`{row['recipe']}`",
                    row["canvas"],
                    row["file"],
                    str(row["seconds"]),
                    megabytes(row["peak_memory_bytes"]),
                    f"{row['file_bytes'] / 1e6:.1f}",
                ]
                for row in document["rows"]
            ),
        ),
    )


def _worst(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{max(head['relative_error'] for head in row['heads'].values()):.1e}"


def _mixed(row: dict[str, Any] | None) -> tuple[str, str]:
    if row is None:
        return "", ""
    pairs = (
        f"{label} {row['float'][name]:.1f} → {row['converted'][name]:.1f}"
        for name, label in _METRICS.items()
        if name in row["float"] and name in row["converted"]
    )
    return f"{row['file_bytes'] / 1e6:.1f}", ", ".join(pairs)
