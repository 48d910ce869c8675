"""Draws the plots of docs/images/ from the JSON files in results/.

python -m benchmarks.plots
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deeplab2_edge.files import atomic_write

_RESULTS = Path(__file__).parent / "results"
_IMAGES = Path(__file__).parent.parent / "docs" / "images"
# Readable for color-blind people (Okabe and Ito).
_COLORS = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00"),
    *("#cc79a7", "#56b4e9", "#f0e442", "#999999"),
)
_STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "deeplab2-edge",  # the same picture is the same file
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
_WAYS = {
    ("runtime", "int8"): "deeplab2-edge, int8",
    ("runtime", "none"): "deeplab2-edge, float32",
    ("onnx", "int8"): "ONNX Runtime, int8",
    ("onnx", "none"): "ONNX Runtime, float32",
    ("tflite + tensorflow", "int8"): "TFLite int8, merged in TensorFlow",
    ("tflite + tensorflow", "none"): "TFLite float32, merged in TensorFlow",
    ("saved-model", "none"): "SavedModel, merged in TensorFlow",
}


def main() -> None:
    """Draws all whose results are there."""
    for name, (results, draw) in _PLOTS.items():
        documents = [d for d in map(_read, results) if d]
        if not documents:
            continue
        with rc_context(dict(_STYLE)):
            figure = draw(*documents)
            stream = io.StringIO()
            figure.savefig(stream, format="svg", metadata={"Date": None})
        with atomic_write(_IMAGES / name) as temporary:
            temporary.write_text(
                "\n".join(line.rstrip() for line in stream.getvalue().splitlines())
                + "\n"
            )


def _read(name: str) -> dict[str, Any]:
    path = _RESULTS / name
    document: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return document


def _end_to_end(document: dict[str, Any]) -> Figure:
    """Bars of milliseconds with two threads, a panel for each network and canvas."""
    rows = [row for row in document["rows"] if row["threads"] == 2]
    cases = list(dict.fromkeys((r["network"], tuple(r["canvas"])) for r in rows))
    figure = Figure(figsize=(8, 0.7 + 1.5 * ((len(cases) + 1) // 2)), layout="tight")
    panels = figure.subplots((len(cases) + 1) // 2, 2, squeeze=False).ravel()
    for panel in panels[len(cases) :]:
        panel.set_visible(False)
    for panel, (network, canvas) in zip(panels, cases, strict=False):
        times = {
            (r["way"], r["mode"]): r["ms"]
            for r in rows
            if (r["network"], tuple(r["canvas"])) == (network, canvas)
        }
        bars = panel.barh(
            [_WAYS[way] for way in _WAYS if way in times],
            [times[way] for way in _WAYS if way in times],
            color=[_COLORS[0 if w[0] == "runtime" else 7] for w in _WAYS if w in times],
        )
        panel.bar_label(bars, fmt="%.0f", padding=2, fontsize=7)
        panel.invert_yaxis()
        panel.tick_params(axis="y", labelsize=7)
        panel.margins(x=0.15)
        panel.set_title(f"{network}, {canvas[0]} x {canvas[1]}: ms, 2 threads", size=9)
    return figure


def _merging(document: dict[str, Any]) -> Figure:
    """The cost of each way against pixels, and of the core against centers."""
    figure = Figure(figsize=(8, 3.2), layout="tight")
    left, right = figure.subplots(1, 2)
    rows = [r for r in document["rows"] if r["centers"] == 60 and not r["is_integer"]]
    pixels = [r["map_bytes"] / 4e6 for r in rows]
    for way, color in zip(rows[0]["milliseconds"], _COLORS, strict=False):
        if way == "native_2":
            continue
        times = [row["milliseconds"][way] for row in rows]
        left.plot(pixels, times, "o-", color=color, label=way)
    left.set(xscale="log", yscale="log", xlabel="megapixels", ylabel="ms, 60 centers")
    left.legend(fontsize=7)
    for row, color in zip(document["against_centers"], _COLORS, strict=False):
        times = row["processor_milliseconds"]
        counts = [int(count) for count in times]
        base = times["1"]
        ratios = [ms / base for ms in times.values()]
        right.plot(counts, ratios, "o-", color=color, label=row["canvas"])
    right.set(xscale="log", ylim=(0, None), xlabel="centers")
    right.set_ylabel("native, times that of 1 center")
    right.legend(fontsize=7)
    return figure


def _limit(document: dict[str, Any]) -> Figure:
    """Where the time of each network goes, and what it would be at the peak."""
    rows = [row for row in document["rows"] if row["threads"] == 1]
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["kinds"]))
    kinds.sort(key=lambda k: -sum(r["kinds"].get(k, {}).get("share", 0) for r in rows))
    figure = Figure(figsize=(8, 0.6 + 0.45 * len(rows)), layout="tight")
    panel = figure.subplots()
    labels = [f"{row['network']}, {row['mode']}" for row in rows]
    starts = [0.0] * len(rows)
    others = len(kinds) > len(_COLORS)
    shown = kinds[: len(_COLORS) - 1] if others else kinds
    for kind, color in zip(shown, _COLORS, strict=False):
        shares = [100 * row["kinds"].get(kind, {}).get("share", 0) for row in rows]
        panel.barh(labels, shares, left=starts, color=color, label=kind)
        starts = [a + b for a, b in zip(starts, shares, strict=True)]
    if others:
        rest = [100 - start for start in starts]
        panel.barh(labels, rest, left=starts, color=_COLORS[-1], label="other")
    for place, row in enumerate(rows):
        peak = 100 * row["share_of_peak"]
        panel.plot([peak, peak], [place - 0.4, place + 0.4], color="black", lw=1.5)
    panel.invert_yaxis()
    panel.set(xlim=(0, 100), xlabel="percent of the time, 1 thread; black: at the peak")
    panel.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _frontier(*documents: dict[str, Any]) -> Figure:
    """PQ against milliseconds of each network and canvas."""
    figure = Figure(figsize=(4.2 * len(documents), 3.4), layout="tight")
    panels: Iterable[Axes] = figure.subplots(1, len(documents), squeeze=False).ravel()
    networks = list(
        dict.fromkeys(r["network"] for d in documents for r in d["rows"].values())
    )
    colors = dict(zip(networks, _COLORS, strict=False))
    for panel, document in zip(panels, documents, strict=True):
        rows = sorted(document["rows"].values(), key=lambda row: row["ms"]["1"])
        best = [row for row in rows if row["is_on_frontier"]]
        panel.plot(*_points(best), "-", color="#bbbbbb", zorder=0)
        for network in dict.fromkeys(row["network"] for row in rows):
            mine = [row for row in rows if row["network"] == network]
            panel.plot(*_points(mine), "o", color=colors[network], label=network)
            for row in mine:
                panel.annotate(
                    row["canvas"],
                    (row["ms"]["1"], row["percent"]["pq"]),
                    textcoords="offset points",
                    xytext=(4, -8),
                    fontsize=6,
                )
        panel.set(xscale="log", xlabel="ms, 1 thread, int8", ylabel="PQ")
        panel.set_title(_place(document), size=9)
        panel.legend(fontsize=7)
    return figure


def _points(rows: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [r["ms"]["1"] for r in rows], [r["percent"]["pq"] for r in rows]


def _place(document: dict[str, Any]) -> str:
    is_camvid = "camvid" in document["command"]
    return "CamVid, val" if is_camvid else "synthetic street world, held-out scenes"


_PLOTS: Mapping[str, tuple[tuple[str, ...], Callable[..., Figure]]] = {
    "end_to_end.svg": (("end_to_end.json",), _end_to_end),
    "merging.svg": (("merging.json",), _merging),
    "limit.svg": (("limit.json",), _limit),
    "frontier.svg": (("frontier_synthetic.json", "frontier_camvid.json"), _frontier),
}

if __name__ == "__main__":
    main()
