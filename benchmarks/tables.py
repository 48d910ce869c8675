"""Writes the tables of README.md and pages of docs/ from the JSON files in results/.

python -m benchmarks.tables
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.conversion_tables import (
    format_conversion,
    format_conversion_cost,
    format_conversion_families,
)
from benchmarks.markdown import machine, megabytes, section, size, table
from benchmarks.training_tables import (
    format_attention,
    format_families,
    format_input_pipeline,
    format_matching,
    format_training,
)
from benchmarks.video_tables import format_video
from deeplab2_edge.files import atomic_write
from deeplab2_edge.networks import ARCHITECTURES

FOLDER = Path(__file__).parent
_BEGIN, _END = "<!-- results -->\n", "<!-- /results -->"
_STAGES = ("decode", "preprocess", "network", "merge", "draw")
# Metric of an evaluation -> name of its column.
_METRICS = {
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
    "pq_things": "PQ things",
    "pq_stuff": "PQ stuff",
    "miou": "mIoU",
}


def with_tables(page: Path) -> str:
    """Returns one of `PAGES` with the tables of the present results."""
    before, _, rest = page.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    return f"{before}{_BEGIN}{PAGES[page]()}{_END}{after}"


def format_results() -> str:
    """Formats all results as Markdown."""
    documents = ((_read(name), form) for name, form in _TABLES.items())
    parts = [form(document) for document, form in documents if document is not None]
    return "".join(f"\n{part}\n" for part in parts) + "\n"


def format_models() -> str:
    """Formats the costs of the networks as Markdown."""
    document = _read("models.json")
    if document is None:
        return ""
    versions = machine(document)
    parts = [
        f"`{document['command']}`, TensorFlow {document['tensorflow']}, {versions}."
    ]
    for architecture in ARCHITECTURES:
        rows = [r for r in document["rows"] if r["architecture"] == architecture]
        parts.append(section(f"### {architecture}", _models(rows)))
    return "".join(f"\n{part}\n" for part in parts) + "\n"


def format_videos() -> str:
    """Formats how instances are followed as Markdown."""
    document = _read("video.json")
    return "" if document is None else f"\n{format_video(document)}\n\n"


def _read(name: str) -> dict[str, Any] | None:
    path = FOLDER / "results" / name
    return json.loads(path.read_text()) if path.is_file() else None


def _views(document: dict[str, Any]) -> str:
    return section(
        "### CamVid, validation records, the same checkpoint looking at each image "
        f"several times: {document['num_images']} images, percent",
        f"`{document['command']}`",
        table(
            ["views", *_METRICS.values(), "seconds"],
            (
                [
                    name,
                    *(f"{row[metric]:.2f}" for metric in _METRICS),
                    f"{row['seconds']:.0f}",
                ]
                for name, row in document["percent"].items()
            ),
        ),
    )


def _latency(document: dict[str, Any]) -> str:
    return section(
        "### Latency of one image: medians in milliseconds, the shipped checkpoint",
        f"`{document['command']}`, {document['rounds']} rounds of "
        f"{document['repeats']} images in turn. Network ratio: against fp32 in the "
        "same round.",
        f"Machine: {machine(document)}.",
        table(
            [
                *("canvas", "file", "threads", *_STAGES, "total"),
                *("network ratio", "peak MB"),
            ],
            (
                [
                    row["canvas"],
                    "fp32" if row["quantize"] == "none" else row["quantize"],
                    str(row["threads"]),
                    *(f"{row['p50_ms'][stage]:.1f}" for stage in _STAGES),
                    f"{row['total_p50_ms']:.1f}",
                    f"{row['network_ratio_to_fp32']:.2f}",
                    megabytes(row["peak_memory_bytes"]),
                ]
                for row in document["rows"]
            ),
        ),
    )


def _models(rows: list[dict[str, Any]]) -> str:
    return table(
        [
            *("recipe", "canvas", "parameters", "multiply-adds"),
            *("memory, computed", "measured", "time", "rounds"),
        ],
        map(_model, rows),
    )


def _model(row: dict[str, Any]) -> list[str]:
    first, *others = row["recipes"]
    more = "".join(f", `{_ending(name, first)}`" for name in others)
    measured = row["measured"] or {}
    memory, time = measured.get("memory_bytes"), measured.get("relative_time")
    return [
        f"`{first}`{more}",
        size(row["input_size"]),
        f"{row['parameters'] / 1e6:.1f} M",
        f"{row['multiply_adds'] / 1e9:.1f} G",
        f"{row['computed_memory_bytes'] / 1e9:.2f} GB",
        f"{memory / 1e9:.2f} GB" if memory else "no",
        f"{time:.2f}" if time else f"~{row['relative_multiply_adds']:.2f}",
        str(measured["rounds"] or "first pass") if measured else "none",
    ]


def _ending(name: str, first: str) -> str:
    """Returns the last part of a name that tells it from another."""
    return f"..._{name.removeprefix(first).rpartition('_')[2]}"


# File of `results/` -> its table, in the order of the page.
_TABLES: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "conversion_synthetic.json": format_conversion(
        "held-out scenes of the synthetic street world, the shipped checkpoint"
    ),
    "conversion_camvid.json": format_conversion(
        "validation photographs of CamVid, `camvid_mobilenet_v3_small`"
    ),
    "conversion_families.json": format_conversion_families,
    "conversion_cost.json": format_conversion_cost,
    "views_camvid.json": _views,
    "families.json": format_families,
    "latency.json": _latency,
    "training.json": format_training,
    "input_pipeline.json": format_input_pipeline,
    "matching.json": format_matching,
    "attention.json": format_attention,
    "video.json": format_video,
}
PAGES: Mapping[Path, Callable[[], str]] = {
    FOLDER / "README.md": format_results,
    FOLDER.parent / "docs" / "models.md": format_models,
    FOLDER.parent / "docs" / "video.md": format_videos,
}

if __name__ == "__main__":
    for path in PAGES:
        text = with_tables(path)
        with atomic_write(path) as temporary:
            temporary.write_text(text)
