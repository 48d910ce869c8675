"""Writes the tables of README.md from the JSON files in results/.

python -m benchmarks.tables
"""

import json
from pathlib import Path
from typing import Any

from deeplab2_edge.files import atomic_write

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
_BEGIN, _END = "<!-- results -->\n", "<!-- /results -->"
_STAGES = ("decode", "preprocess", "network", "merge", "draw")
_ACCURACY = {
    "accuracy_synthetic.json": "Synthetic street world, held-out scenes, the shipped "
    "checkpoint",
    "accuracy_camvid.json": "CamVid, validation photographs, "
    "`camvid_mobilenet_v3_small`",
}


def with_tables(text: str) -> str:
    """Returns the README with the tables of the present results."""
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    return f"{before}{_BEGIN}{format_results()}{_END}{after}"


def format_results() -> str:
    """Formats all results as Markdown."""
    parts = []
    for name, title in _ACCURACY.items():
        path = FOLDER / "results" / name
        if path.is_file():
            parts.append(_accuracy(title, json.loads(path.read_text())))
    path = FOLDER / "results" / "latency.json"
    if path.is_file():
        parts.append(_latency(json.loads(path.read_text())))
    return "".join(f"\n{part}\n" for part in parts) + "\n"


def _accuracy(title: str, document: dict[str, Any]) -> str:
    lines = [
        f"### {title}: {document['num_images']} images, percent",
        "",
        f"`{document['command']}`",
        "",
        "| | PQ | SQ | RQ | PQ things | PQ stuff | mIoU |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in document["percent"].items():
        columns = ("pq", "sq", "rq", "pq_things", "pq_stuff", "miou")
        label = name if name == "float" else f"{name}, {_megabytes(document)} MB"
        lines.append(
            f"| {label} | " + " | ".join(f"{row[c]:.2f}" for c in columns) + " |"
        )
    return "\n".join(lines)


def _megabytes(document: dict[str, Any]) -> str:
    return f"{document['int8_bytes'] / 1e6:.1f}"


def _latency(document: dict[str, Any]) -> str:
    machine = document["machine"]
    lines = [
        "### Latency of one image: medians in milliseconds, the shipped checkpoint",
        "",
        f"`{document['command']}`, {document['rounds']} rounds of "
        f"{document['repeats']} images in turn. Network ratio: against fp32 in the "
        "same round.",
        "",
        f"Machine: {_describe(machine)}.",
        "",
        f"| canvas | file | threads | {' | '.join(_STAGES)} | total | network ratio "
        "| peak MB |",
        "|---" * (6 + len(_STAGES)) + "|",
    ]
    for row in document["rows"]:
        times = " | ".join(f"{row['p50_ms'][stage]:.1f}" for stage in _STAGES)
        name = "fp32" if row["quantize"] == "none" else row["quantize"]
        lines.append(
            f"| {row['canvas']} | {name} | {row['threads']} | {times} "
            f"| {row['total_p50_ms']:.1f} | {row['network_ratio_to_fp32']:.2f} "
            f"| {row['peak_memory_bytes'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


def _describe(machine: dict[str, Any]) -> str:
    versions = (f"{name} {version}" for name, version in machine["versions"].items())
    return ", ".join(
        [
            machine["board"] or machine["cpu"],
            f"{machine['usable_cores']} cores",
            f"{machine['memory_bytes'] / 2**30:.0f} GiB",
            f"governor {machine['governor'] or 'unknown'}",
            machine["system"],
            f"Python {machine['python']}",
            *versions,
        ]
    )


if __name__ == "__main__":
    with atomic_write(README) as temporary:
        temporary.write_text(with_tables(README.read_text()))
