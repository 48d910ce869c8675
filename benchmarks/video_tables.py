"""Tables of what was measured of videos."""

from typing import Any

from benchmarks.markdown import machine, section, size, table


def format_video(document: dict[str, Any]) -> str:
    """Formats what `benchmarks/video.py` writes."""
    tracking, cost = document["tracking"], document["cost"]
    sizes = list(dict.fromkeys(tuple(row["size"]) for row in cost["rows"]))
    times = {
        (row["tracker"], tuple(row["size"])): row["cpu_ms"] for row in cost["rows"]
    }
    trackers = list(dict.fromkeys(row["tracker"] for row in tracking["rows"]))
    return section(
        "### Instances followed over synthetic videos",
        f"`{tracking['command']}`: {tracking['num_videos']} videos of "
        f"{tracking['num_frames']} frames, the shipped checkpoint as int8. The same "
        "frames are videos of several kinds; after a cut every instance is a new one. "
        "IDF1 and flicker in percent; the best IDF1 is that of a tracker that makes no "
        "mistake with what the model finds.",
        f"Machine: {machine(tracking)}.",
        table(
            [
                *("videos", "tracker", "id switches", "IDF1", "best"),
                *("flicker of ids", "of classes"),
            ],
            (
                [
                    row["videos"],
                    row["tracker"],
                    str(row["id_switches"]),
                    f"{100 * row['idf1']:.1f}",
                    f"{100 * row['best_idf1']:.1f}",
                    f"{100 * row['flicker_ids']:.1f}",
                    f"{100 * row['flicker_classes']:.1f}",
                ]
                for row in tracking["rows"]
            ),
        ),
        "Milliseconds of one core per frame, new maps of ids included, "
        f"{cost['rows'][0]['things']:.0f} instances:",
        table(
            ["tracker", *map(size, sizes)],
            (
                [name, *(f"{times[name, each]:.1f}" for each in sizes)]
                for name in trackers
            ),
        ),
    )
