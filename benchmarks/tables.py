"""Writes the tables of README.md and docs/models.md from the JSON files in results/.

python -m benchmarks.tables
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deeplab2_edge.files import atomic_write
from deeplab2_edge.networks import ARCHITECTURES

FOLDER = Path(__file__).parent
_BEGIN, _END = "<!-- results -->\n", "<!-- /results -->"
_STAGES = ("decode", "preprocess", "network", "merge", "draw")
_ACCURACY = {
    "accuracy_synthetic.json": "Synthetic street world, held-out scenes, the shipped "
    "checkpoint",
    "accuracy_camvid.json": "CamVid, validation photographs, "
    "`camvid_mobilenet_v3_small`",
}


def with_tables(page: Path) -> str:
    """Returns one of `PAGES` with the tables of the present results."""
    before, _, rest = page.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    return f"{before}{_BEGIN}{PAGES[page]()}{_END}{after}"


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


def format_models() -> str:
    """Formats the costs of the networks as Markdown."""
    path = FOLDER / "results" / "models.json"
    if not path.is_file():
        return ""
    document = json.loads(path.read_text())
    parts = [
        f"`{document['command']}`, TensorFlow {document['tensorflow']}, "
        f"{_describe(document['machine'])}."
    ]
    for architecture in ARCHITECTURES:
        rows = [r for r in document["rows"] if r["architecture"] == architecture]
        parts.append("\n".join([f"### {architecture}", "", *_models(rows)]))
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


def _models(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| recipe | canvas | parameters | multiply-adds | memory, computed | measured "
        "| time | rounds |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        first, *others = row["recipes"]
        more = "".join(f", `{_ending(name, first)}`" for name in others)
        measured = row["measured"] or {}
        memory, time = measured.get("memory_bytes"), measured.get("relative_time")
        cells = [
            f"`{first}`{more}",
            "x".join(map(str, row["input_size"])),
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['multiply_adds'] / 1e9:.1f} G",
            f"{row['computed_memory_bytes'] / 1e9:.2f} GB",
            f"{memory / 1e9:.2f} GB" if memory else "no",
            f"{time:.2f}" if time else f"~{row['relative_multiply_adds']:.2f}",
            str(measured["rounds"] or "first pass") if measured else "none",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _ending(name: str, first: str) -> str:
    """Returns the last part of a name that tells it from another."""
    return f"..._{name.removeprefix(first).rpartition('_')[2]}"


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


PAGES: Mapping[Path, Callable[[], str]] = {
    FOLDER / "README.md": format_results,
    FOLDER.parent / "docs" / "models.md": format_models,
}

if __name__ == "__main__":
    for path in PAGES:
        text = with_tables(path)
        with atomic_write(path) as temporary:
            temporary.write_text(text)
