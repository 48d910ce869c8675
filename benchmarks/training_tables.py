"""Tables of what the training side was measured to do."""

from collections.abc import Iterator
from typing import Any

from benchmarks.markdown import machine, megabytes, section, size, table

# Metric of `families.json` -> name of its column.
_METRICS = {
    "pq": "PQ",
    "miou": "mIoU",
    "stq": "STQ",
    "vpq": "VPQ",
    "abs_rel": "depth error",
}


def format_families(document: dict[str, Any]) -> str:
    """Formats what `benchmarks/families.py` writes."""
    rows = document["rows"]
    metrics = [m for m in _METRICS if any(m in row["trained"] for row in rows.values())]
    return section(
        "### What every family learns on this machine: first step → trained, percent",
        f"`{document['command']}`: the small recipes of the synthetic street world, "
        "measured on held-out scenes. The error of depth is a share of the depth. "
        "Peak: resident memory of the training.",
        f"Machine: {machine(document)}.",
        table(
            [
                *("recipe", "canvas", "steps", "minutes"),
                *(_METRICS[metric] for metric in metrics),
                "peak MB",
            ],
            (
                [
                    f"`{recipe}`",
                    size(row["canvas"]),
                    str(row["steps"]),
                    f"{row['seconds'] / 60:.0f}",
                    *(_progress(row, metric) for metric in metrics),
                    megabytes(row["peak_memory_bytes"]),
                ]
                for recipe, row in sorted(rows.items())
            ),
        ),
    )


def _progress(row: dict[str, Any], metric: str) -> str:
    before, after = row["first_step"].get(metric), row["trained"].get(metric)
    return "" if before is None or after is None else f"{before:.1f} → {after:.1f}"


def format_training(document: dict[str, Any]) -> str:
    """Formats what `benchmarks/training.py` writes."""
    rows = document["rows"]
    first = rows[0]
    return section(
        f"### Training on crops of {size(document['crop_size'])}: "
        "Panoptic-DeepLab as published",
        f"`{document['command']}`, {document['rounds']} rounds of steps in turn, "
        f"on rendered street scenes of {size(document['image_size'])}, stored as "
        "JPEG, scaled by 0.5 to 2, cropped and flipped beside the step. Time: of a "
        "step, over that in float32 of the same round. Waiting: share of the "
        "loop's time in which it waited for a batch. Memory of an image: what it "
        "adds to the peak of resident memory, from two batch sizes, and what "
        "`--dry-run` computes.",
        f"Machine: {machine(document, _tensorflow(first), first['device'])}.",
        table(
            [
                *("recipe", "batch", "variant", "steps/s", "images/s", "time"),
                *("waiting", "MB of an image", "computed"),
            ],
            (cells for row in rows for cells in _steps(row)),
        ),
        "The input pipeline of these recipes, with no step beside it:",
        table(
            ["recipe", "images/s", "CPU ms per image"],
            ([f"`{row['recipe']}`", *_pipeline(row["input_pipeline"])] for row in rows),
        ),
        *_profiles(rows),
    )


def _steps(row: dict[str, Any]) -> Iterator[list[str]]:
    memory = {one["variant"]: one for one in row["memory"]}
    for step in row["steps"]:
        mine = memory.get(step["variant"])
        yield [
            f"`{row['recipe']}`",
            str(row["batch_size"]),
            step["variant"],
            f"{step['steps_per_second']:.3f}",
            f"{step['images_per_second']:.2f}",
            f"{step['ratio']:.2f}",
            f"{100 * step['input_wait_fraction']:.1f} %",
            megabytes(mine["bytes_per_image"]) if mine else "",
            megabytes(mine["computed_bytes_per_image"]) if mine else "",
        ]


def _profiles(rows: list[dict[str, Any]]) -> list[str]:
    """Formats the profiles; those of a GPU are empty."""
    rows = [row for row in rows if row["profile"]]
    if not rows:
        return []
    parts = list(rows[0]["profile"])
    return [
        "Where the time of a float32 step goes, percent of the time of its operations, "
        "from a trace of TensorFlow's profiler:",
        table(
            ["recipe", *parts],
            (
                [
                    f"`{row['recipe']}`",
                    *(f"{100 * row['profile'][part]:.1f}" for part in parts),
                ]
                for row in rows
            ),
        ),
    ]


def format_input_pipeline(document: dict[str, Any]) -> str:
    """Formats what `benchmarks/input_pipeline.py` writes."""
    return section(
        "### Training samples of every family, without a network",
        f"`{document['command']}`: rendered street scenes of "
        f"{size(document['image_size'])}, stored as JPEG, become crops of "
        f"{size(document['crop_size'])} with all targets, in batches of "
        f"{document['batch_size']}.",
        f"Machine: {machine(document, _tensorflow(document))}.",
        table(
            ["samples of", "images/s", "CPU ms per image"],
            ([row["samples"], *_pipeline(row)] for row in document["rows"]),
        ),
    )


def _pipeline(row: dict[str, Any]) -> list[str]:
    return [f"{row['images_per_second']:.1f}", f"{row['cpu_ms_per_image']:.1f}"]


def format_matching(document: dict[str, Any]) -> str:
    """Formats what `benchmarks/matching.py` writes."""
    return section(
        f"### Matching masks with {document['slots']} slots, batch of "
        f"{document['batch']}: milliseconds",
        f"`{document['command']}`, median of {document['rounds']}: inside the compiled "
        "step, and SciPy outside of it, one sample after the other.",
        f"Machine: {machine(document, _tensorflow(document), document['device'])}.",
        table(
            ["costs", "masks", "in the step", "SciPy"],
            (
                [
                    row["kind"],
                    str(row["masks"]),
                    f"{row['ms']:.2f}",
                    f"{row['scipy_ms']:.2f}" if "scipy_ms" in row else "",
                ]
                for row in document["rows"]
            ),
        ),
    )


def format_attention(document: dict[str, Any]) -> str:
    """Formats what `benchmarks/attention.py` writes."""
    forms = list(document["rows"][0]["median_ms"])
    return section(
        "### One axial attention layer of MaX-DeepLab-S in three forms",
        f"`{document['command']}`, {document['rounds']} rounds in turn: medians in "
        "milliseconds, and in brackets over the plain formulation, `einsum`, of the "
        "same round. The models use `layer`.",
        f"Machine: {machine(document, _tensorflow(document))}.",
        table(
            ["map", "width", "task", *forms],
            (
                [
                    *(row["map"], row["width"], row["task"]),
                    *(_with_ratio(row, form) for form in forms),
                ]
                for row in document["rows"]
            ),
        ),
    )


def _with_ratio(row: dict[str, Any], form: str) -> str:
    return f"{row['median_ms'][form]:.0f} ({row['ratio_to_einsum'][form]:.2f})"


def _tensorflow(document: dict[str, Any]) -> str:
    return f"TensorFlow {document['tensorflow']}"
