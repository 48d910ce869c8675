"""The model card beside every product: what it is, how good, how to use it, its limits.

One dictionary of facts makes one page, which is written as Markdown and as a single
HTML file with pictures.
"""

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deeplab2_edge.convert.card.pages import (
    Block,
    Code,
    Items,
    Page,
    Picture,
    Section,
    Table,
    Text,
    to_html,
    to_markdown,
)
from deeplab2_edge.convert.card.pictures import draw_classes
from deeplab2_edge.convert.certificate import (
    Certificate,
    head_rows,
    other_figures,
    read_certificate,
    summary_of,
)
from deeplab2_edge.convert.images import public_name
from deeplab2_edge.convert.modes import MODES, NONE
from deeplab2_edge.convert.quantization.calibration import Calibration
from deeplab2_edge.convert.verification import Verification
from deeplab2_edge.families import MASKS, MOTION, PANOPTIC, SEMANTIC, TWO_FRAMES
from deeplab2_edge.files import atomic_write
from deeplab2_edge.model_file import HOST, ModelMetadata, ResizeRule
from deeplab2_edge.wording import counted

MARKDOWN_SUFFIX = ".card.md"
HTML_SUFFIX = ".card.html"

# Fewer labeled images say little about a point of PQ.
_FEW_LABELS = 50
_OF_IMAGES = "gives every pixel of an image a class"
_OF_VIDEOS = (
    "gives every pixel of a video a class, tells things of one class apart and follows "
    "them from frame to frame"
)
_GIVES = {
    SEMANTIC: _OF_IMAGES,
    PANOPTIC: f"{_OF_IMAGES} and tells things of one class apart",
    MASKS: f"{_OF_IMAGES} and tells things of one class apart, by a set of masks",
    MOTION: _OF_VIDEOS,
    TWO_FRAMES: _OF_VIDEOS,
}
# A path says more about its owner than about the model.
_ABSOLUTE = re.compile(r"(?<![\w./])/(?:[^\s/:;,]+/)*([^\s/:;,]+)")
_INTENDED = (
    "Meant for images like those it was trained and measured on. Nothing is known of "
    "others: measure on your own (deeplab2-edge evaluate) before you rely on it.",
    "Not meant for decisions that can harm people without tests, limits and a person "
    "of your own: it makes mistakes, and does not say which.",
    "It knows the classes of the table and no others; what belongs to none of them "
    "gets the one that looks most alike, or none.",
)


def collect_facts(
    *,
    file_name: str,
    file_bytes: int,
    metadata: ModelMetadata,
    verification: Verification,
    op_counts: Mapping[str, int],
    float_ops: Mapping[str, int] | None = None,
    calibration: Calibration | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Collects what a card says, as plain JSON values.

    Args:
        file_name: Of the product.
        file_bytes: Its size.
        metadata: As written into it.
        verification: Of the product against its source.
        op_counts: Number of ops by name.
        float_ops: Of them those that compute in float32, in an integer file.
        calibration: What set the ranges.
        notes: Of the conversion.
    """
    return {
        "file_name": file_name,
        "file_bytes": file_bytes,
        "metadata": json.loads(metadata.to_json()),
        "op_counts": dict(op_counts),
        "float_ops": dict(float_ops or {}),
        "calibration": None if calibration is None else _calibration_facts(calibration),
        "classes": _class_facts(metadata, verification),
        "has_instances": metadata.has_instances,
        "has_depth": metadata.has_depth,
        "notes": [_ABSOLUTE.sub(r"\1", note) for note in notes],
    }


def make_page(facts: Mapping[str, Any], pictures: Sequence[Picture] = ()) -> Page:
    """Makes the page of a card.

    Args:
        facts: Of `collect_facts`.
        pictures: Of `draw_comparison`.
    """
    metadata = ModelMetadata.from_json(json.dumps(facts["metadata"]))
    certificate = read_certificate(metadata)
    sections = [
        Section("What it is", _summary(facts, metadata, certificate)),
        Section("How to use it", _usage(facts, metadata)),
        Section("Pictures", list(pictures)) if pictures else None,
        Section("How close it is to its source", _certificate_blocks(certificate))
        if certificate
        else None,
        Section("Classes", _class_blocks(facts, metadata)),
        Section("Quantization", _quantization(facts, metadata)),
        Section("The graph", _graph(facts, metadata)),
        Section(
            "Intended use and limits", [Items(_limits(facts, metadata, certificate))]
        ),
        Section("Where it comes from", _origin(metadata, certificate)),
    ]
    title = f"{metadata.name}, {label_of(metadata)}"
    return Page(title, [section for section in sections if section is not None])


def write_card(
    model: Path, facts: Mapping[str, Any], pictures: Sequence[Picture] = ()
) -> tuple[Path, Path]:
    """Writes the card of a model file beside it.

    Returns:
        The Markdown and the HTML file.

    Raises:
        OutputError: If a file cannot be written.
    """
    page = make_page(facts, pictures)
    markdown, document = card_paths(model)
    for path, text in (
        (markdown, to_markdown(page, pictures_in=document.name)),
        (document, to_html(page)),
    ):
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return markdown, document


def card_paths(model: Path) -> tuple[Path, Path]:
    """Names the Markdown and the HTML file of a model file's card."""
    return (
        model.with_name(model.name + MARKDOWN_SUFFIX),
        model.with_name(model.name + HTML_SUFFIX),
    )


def label_of(metadata: ModelMetadata) -> str:
    """Says what to call the converted model beside the float one."""
    is_float = metadata.quantization == NONE
    return "converted, float32" if is_float else metadata.quantization


def _calibration_facts(calibration: Calibration) -> dict[str, Any]:
    return {
        "images": len(calibration.image_names),
        "used": calibration.num_used,
        "quantile": calibration.quantile,
        "outliers": [
            {"name": public_name(o.name), "factor": o.factor, "layer": o.layer}
            for o in calibration.outliers
        ],
    }


def _class_facts(
    metadata: ModelMetadata, verification: Verification
) -> list[dict[str, Any]]:
    """Gives PQ (of semantic models nothing) and IoU of each class, of both models."""
    accuracies = verification.float_accuracy, verification.accuracy
    if accuracies[0] is None or accuracies[1] is None:
        pairs = [("agreement", verification.pq, verification.miou)]
    else:
        pairs = [
            (side, accuracy.pq, accuracy.miou)
            for side, accuracy in zip(("float", "converted"), accuracies, strict=True)
            if accuracy is not None
        ]
    facts = []
    for index, (name, color) in enumerate(
        zip(metadata.class_names, metadata.colors, strict=True)
    ):
        figures: dict[str, float] = {}
        for side, pq, miou in pairs:
            if metadata.has_instances and index in pq.per_class:
                figures[f"{side}.pq"] = pq.per_class[index].pq
            if index in miou.per_class:
                figures[f"{side}.iou"] = miou.per_class[index]
        facts.append(
            {
                "name": name,
                "color": list(color),
                "is_thing": metadata.has_instances and index in metadata.thing_ids,
                "figures": figures,
            }
        )
    return facts


def _summary(
    facts: Mapping[str, Any], metadata: ModelMetadata, certificate: Certificate | None
) -> list[Block]:
    height, width = metadata.canvas
    gives = _GIVES[metadata.family]
    if facts["has_depth"]:
        gives += ", and says how far each pixel is away"
    blocks: list[Block] = [
        Text(
            f"A {metadata.meta_architecture} network with the backbone "
            f"{metadata.backbone} that {gives}."
        ),
        Table(
            ("", ""),
            [
                ("file", f"{facts['file_name']}, {facts['file_bytes'] / 1e6:.2f} MB"),
                ("quantization", f"{metadata.quantization}: {_mode(metadata)}"),
                ("written for", metadata.target),
                ("canvas", f"{height} x {width} (height x width)"),
                ("classes", f"{metadata.num_classes}"),
            ],
        ),
    ]
    if certificate is not None:
        blocks.insert(1, Text(certificate.verdict, is_strong=True))
    return blocks


def _usage(facts: Mapping[str, Any], metadata: ModelMetadata) -> list[Block]:
    name = facts["file_name"]
    quoted = shlex.quote(name)
    is_of_videos = metadata.keeps_ids
    given = "video.mp4" if is_of_videos else "photo.jpg"
    call = (
        "results = PanopticSegmenter({0}).segment_video(frames)"
        if is_of_videos
        else "result = PanopticSegmenter({0})('photo.jpg')"
    ).format(repr(name))
    return [
        Code(
            f"deeplab2-edge run {quoted} {given} --output results/\n"
            f"deeplab2-edge verify {quoted}     # does this machine compute the same?\n"
            f"deeplab2-edge benchmark {quoted}  # how fast is it here?"
        ),
        Code(f"from deeplab2_edge import PanopticSegmenter\n\n{call}", "python"),
        Text(f"Images of any size; {_resizing(metadata.resize)}."),
    ]


def _resizing(rule: ResizeRule) -> str:
    if rule == ResizeRule():
        return "larger ones than the canvas are shrunk to fit, smaller ones padded"
    return (
        f"they are resized to at least {rule.min or 'their own size'} and at most "
        f"{rule.max or 'the canvas'}, and padded"
    )


def _certificate_blocks(certificate: Certificate) -> list[Block]:
    summary = summary_of(certificate, full=True)
    wanted = ("verdict", "compared on", "made")
    blocks: list[Block] = [
        Table(("", ""), [(title, summary[title]) for title in wanted])
    ]
    rows = head_rows(certificate.figures)
    if rows:
        header = ("head", "largest error", "over its largest value", "SNR in dB")
        blocks.append(Table(header, rows))
    others = other_figures(certificate.figures)
    blocks.append(Table(("figure", "found"), list(others.items())))
    if certificate.promises:
        blocks += [
            Text("Promised, and checked again by deeplab2-edge verify --source:"),
            Items([f"{p}, on {p.on}" for p in certificate.promises]),
        ]
    return blocks


def _class_blocks(facts: Mapping[str, Any], metadata: ModelMetadata) -> list[Block]:
    classes = facts["classes"]
    columns = [
        (side, figure)
        for figure in ("pq", "iou")
        for side in ("float", "converted", "agreement")
        if any(f"{side}.{figure}" in entry["figures"] for entry in classes)
    ]
    titles = {"float": "float", "converted": label_of(metadata)}
    header = [
        f"{figure.upper() if figure == 'pq' else 'IoU'}, "
        f"{titles.get(side, 'float as ground truth')}"
        for side, figure in columns
    ]
    rows: list[list[Any]] = [
        [
            str(index),
            tuple(entry["color"]),
            entry["name"],
            "thing" if entry["is_thing"] else "stuff",
            *(_percent(entry["figures"].get(f"{s}.{f}")) for s, f in columns),
        ]
        for index, entry in enumerate(classes)
    ]
    blocks: list[Block] = [Table(("id", "color", "name", "kind", *header), rows)]
    plot = _plot(classes, titles)
    return [plot, *blocks] if plot else blocks


def _plot(
    classes: Sequence[Mapping[str, Any]], titles: Mapping[str, str]
) -> Picture | None:
    """Draws PQ of each class, or IoU where there is no PQ."""
    for figure, title in (("pq", "PQ of each class"), ("iou", "IoU of each class")):
        shown = [
            entry
            for entry in classes
            if any(name.endswith(f".{figure}") for name in entry["figures"])
        ]
        if not shown:
            continue
        sides = [
            side
            for side in ("float", "converted", "agreement")
            if any(f"{side}.{figure}" in entry["figures"] for entry in shown)
        ]
        bars = [
            (
                titles.get(side, "float as ground truth"),
                [entry["figures"].get(f"{side}.{figure}", 0.0) for entry in shown],
            )
            for side in sides
        ]
        return draw_classes(f"{title}, percent", [e["name"] for e in shown], bars)
    return None


def _quantization(facts: Mapping[str, Any], metadata: ModelMetadata) -> list[Block]:
    blocks: list[Block] = [Text(f"{metadata.quantization}: {_mode(metadata)}.")]
    calibration = facts["calibration"]
    if calibration is not None:
        blocks.append(
            Text(
                f"The ranges were set by {calibration['used']} of "
                f"{counted(calibration['images'], 'image')}, of which they cover the "
                f"{calibration['quantile']:g} quantile."
            )
        )
        if calibration["outliers"]:
            blocks += [
                Text("Left out, since they would have stretched the ranges:"),
                Table(
                    ("image", "times the usual range", "in"),
                    [
                        (o["name"], f"{o['factor']:.1f}", o["layer"])
                        for o in calibration["outliers"]
                    ],
                ),
            ]
    if facts["float_ops"]:
        count = sum(facts["float_ops"].values())
        blocks.append(Text(f"{counted(count, 'op')} still compute in float32."))
    return blocks


def _graph(facts: Mapping[str, Any], metadata: ModelMetadata) -> list[Block]:
    tensors = [
        (kind, name, spec.name, " x ".join(map(str, (1, *spec.shape))))
        for kind, specs in (("input", metadata.inputs), ("output", metadata.outputs))
        for name, spec in specs.items()
    ]
    place = "in Python" if metadata.merge_place == HOST else "inside the graph"
    counts = sorted(facts["op_counts"].items(), key=lambda item: (-item[1], item[0]))
    total = sum(facts["op_counts"].values())
    return [
        Table(("", "name", "tensor", "shape"), tensors),
        Text(f"Results are made of the outputs {place}. {counted(total, 'op')}:"),
        Table(("op", "number"), [(name, str(count)) for name, count in counts]),
    ]


def _limits(
    facts: Mapping[str, Any], metadata: ModelMetadata, certificate: Certificate | None
) -> list[str]:
    limits = [*_INTENDED]
    height, width = metadata.canvas
    limits.append(
        f"It sees {height} x {width} pixels: of a larger image it sees a smaller copy, "
        "in which small things disappear."
    )
    if certificate is not None:
        labeled = int(certificate.figures.get("labeled_images") or 0)
        if not labeled:
            limits.append(
                "It was not measured against labels: the figures say how close it is "
                "to its source, not how good the source is."
            )
        elif labeled < _FEW_LABELS:
            limits.append(
                f"It was measured against labels of {counted(labeled, 'image')} only: "
                "figures can be off by several points."
            )
        if certificate.license == "unknown":
            limits.append(
                "The license of the weights is unknown: find out before you pass them "
                "on, and convert with --weights-license."
            )
    if metadata.quantization != NONE:
        limits.append(
            "Other processors round differently: results can differ from device to "
            "device. deeplab2-edge verify says whether yours is within bounds."
        )
    limits.append("Speed was not measured; it depends on the device.")
    return [*limits, *facts["notes"]]


def _origin(metadata: ModelMetadata, certificate: Certificate | None) -> list[Block]:
    rows = [
        (
            key.replace("_", " "),
            value if isinstance(value, str) else json.dumps(value, sort_keys=True),
        )
        for key, value in sorted(metadata.provenance.items())
    ]
    rows.append(("graph sha256", metadata.graph_sha256))
    if certificate is not None:
        rows.insert(0, ("license of the weights", certificate.license))
    return [Table(("", ""), rows)]


def _mode(metadata: ModelMetadata) -> str:
    mode = MODES.get(metadata.quantization)
    return metadata.quantization if mode is None else mode.description


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"
