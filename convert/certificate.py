"""What a conversion was compared with, and what it promises: carried by every file.

A certificate says which checkpoint became which graph, on which images both ran, how
far they were apart, and what anyone who repeats the comparison must find again. It
holds names, digests and figures, but no paths and no name of a machine. Nothing here
needs TensorFlow: devices read certificates.
"""

import dataclasses
import hashlib
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeplab2_edge.convert.images import public_name
from deeplab2_edge.convert.modes import NONE
from deeplab2_edge.convert.options import LIMITED_METRICS, DropLimit
from deeplab2_edge.convert.provenance import creation_time, tool_versions
from deeplab2_edge.convert.verification import METRICS, Accuracy, Verification
from deeplab2_edge.errors import ModelFileError, UsageError
from deeplab2_edge.model_file import ONNX, ModelMetadata
from deeplab2_edge.model_file.fields import (
    Fields,
    integer,
    mapping,
    number,
    text,
    texts,
    truth,
)
from deeplab2_edge.wording import counted

VERSION = 1
UNKNOWN = "unknown"
# Float32 files: the largest error of a head over its largest magnitude. Convolutions
# of the garden add up to 1e-6 to 4e-5, in whatever order they are computed.
EQUAL = 1e-4
# Ties between classes can fall either way.
EQUAL_CLASSES = 0.999

# How much worse a repetition may be on the same images: other processors round
# integers and half floats their own way.
_SNR_MARGIN_DB = 3.0
_AGREEMENT_MARGIN = 0.02
_DROP_MARGIN = 1.0

ANY_IMAGES = "any images"
SAME_IMAGES = "the same images"

_MAX_NAMES = 64
_MAX_TEXT = 200
_DIGITS = 6
_SHORT_SHA = 16
_ONNX_TOOLS = ("onnx", "onnxruntime", "tf2onnx")
_LABEL_WIDTH = 15


@dataclass(frozen=True)
class Bound:
    """Bounds a figure.

    Attributes:
        figure: A name of `figures_of`.
        limit: The bound.
        is_upper: Whether the figure may be at most `limit`, else at least.
        on: `ANY_IMAGES`, or `SAME_IMAGES`: those of the certificate.
    """

    figure: str
    limit: float
    is_upper: bool
    on: str

    def is_kept(self, found: float | None) -> bool | None:
        """Judges a figure, None if it was not measured."""
        if found is None or math.isnan(found):
            return None
        return found <= self.limit if self.is_upper else found >= self.limit

    def __str__(self) -> str:
        bound = "at most" if self.is_upper else "at least"
        return f"{_plain(self.figure)} {bound} {self.limit:.4g}"


@dataclass(frozen=True)
class Finding:
    """Is a promise and what was found.

    Attributes:
        promise: The promise.
        found: The figure, None if it could not be measured.
    """

    promise: Bound
    found: float | None

    @property
    def is_kept(self) -> bool | None:
        """Whether the promise was kept, None if that could not be measured."""
        return self.promise.is_kept(self.found)

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            **_promise_json(self.promise),
            "found": self.found,
            "kept": self.is_kept,
        }


@dataclass(frozen=True)
class Certificate:
    """Says what was compared, on what, and with what result.

    Attributes:
        checkpoint: Name of the source.
        checkpoint_sha256: Of its values.
        config_sha256: Of its experiment.
        license: Of the weights.
        graph_sha256: Of the product.
        format: `tflite` or `onnx`.
        quantization: One of `modes.MODE_NAMES`.
        target: What the graph was written for.
        data: Name of the images' folder or file.
        image_names: The images, the first 64.
        num_images: How many there were.
        inputs_sha256: Of their pixels.
        figures: By the names of `figures_of`.
        promises: What must be found again.
        passed: Whether the conversion kept them.
        verdict: The same in words.
        tool_versions: What took part.
        machine: `architecture` and `system`.
        created: ISO 8601.
    """

    checkpoint: str
    checkpoint_sha256: str
    config_sha256: str
    license: str
    graph_sha256: str
    format: str
    quantization: str
    target: str
    data: str
    image_names: tuple[str, ...]
    num_images: int
    inputs_sha256: str
    figures: Mapping[str, float | None]
    promises: tuple[Bound, ...]
    passed: bool
    verdict: str
    tool_versions: Mapping[str, str]
    machine: Mapping[str, str]
    created: str

    def findings(self, verification: Verification) -> tuple[Finding, ...]:
        """Compares a repetition with what was promised.

        Of other images only those promises count that hold on any.
        """
        is_same = verification.inputs_sha256 == self.inputs_sha256
        found = figures_of(verification)
        return tuple(
            Finding(promise, found.get(promise.figure))
            for promise in self.promises
            if is_same or promise.on == ANY_IMAGES
        )

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            "version": VERSION,
            **dataclasses.asdict(self),
            "image_names": list(self.image_names),
            "promises": [_promise_json(promise) for promise in self.promises],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Certificate":
        """Reads what `to_json` wrote.

        Raises:
            ModelFileError: If a field is missing or wrong, or the version unknown.
        """
        found = Fields(dict(document), "certificate")
        version = found.get("version", integer)
        if version != VERSION:
            raise ModelFileError(
                f"certificate.version is {version}; this deeplab2-edge reads {VERSION}"
            )
        strings = (
            *("checkpoint", "checkpoint_sha256", "config_sha256", "license"),
            *("graph_sha256", "format", "quantization", "target", "data"),
            *("inputs_sha256", "verdict", "created"),
        )
        return cls(
            **{name: found.get(name, text) for name in strings},
            image_names=found.get("image_names", texts),
            num_images=found.get("num_images", integer),
            figures=found.get("figures", _numbers_by_name),
            promises=found.get("promises", _promises),
            passed=found.get("passed", truth),
            tool_versions=found.get("tool_versions", _texts_by_name),
            machine=found.get("machine", _texts_by_name),
        )


def make_certificate(
    metadata: ModelMetadata,
    graph: bytes,
    file_format: str,
    verification: Verification,
    *,
    weights_license: str | None = None,
    drop_limits: Sequence[DropLimit] = (),
) -> Certificate:
    """Certifies a conversion.

    Args:
        metadata: Of the converted model, with its provenance.
        graph: What is written into the file.
        file_format: `tflite` or `onnx`.
        verification: Of the graph against its source.
        weights_license: Of the weights, None if it is not known.
        drop_limits: What the user was promised.
    """
    figures = figures_of(verification, metrics=LIMITED_METRICS[metadata.family])
    mode = metadata.quantization
    promises = _make_promises(figures, mode, drop_limits)
    passed, verdict = _judge(figures, promises, mode)
    origin = metadata.provenance
    return Certificate(
        checkpoint=str(origin.get("checkpoint", UNKNOWN)),
        checkpoint_sha256=str(origin.get("checkpoint_sha256", "")),
        config_sha256=str(origin.get("config_sha256", "")),
        license=weights_license or UNKNOWN,
        graph_sha256=hashlib.sha256(graph).hexdigest(),
        format=file_format,
        quantization=mode,
        target=metadata.target,
        data=Path(verification.source).name,
        image_names=tuple(map(public_name, verification.image_names[:_MAX_NAMES])),
        num_images=len(verification.image_names),
        inputs_sha256=verification.inputs_sha256,
        figures={name: _rounded(value) for name, value in figures.items()},
        promises=promises,
        passed=passed,
        verdict=verdict,
        tool_versions=tool_versions(*(_ONNX_TOOLS if file_format == ONNX else ())),
        machine={"architecture": platform.machine(), "system": platform.system()},
        created=creation_time(),
    )


def figures_of(
    verification: Verification, *, metrics: Iterable[str] = METRICS
) -> dict[str, float | None]:
    """Lists all figures of a comparison under names of their own.

    Args:
        verification: The comparison.
        metrics: Whose drop is listed, where it can be measured.

    Returns:
        `HEAD.max_error`, `HEAD.relative_error`, `HEAD.snr_db`, `class_agreement`,
        `panoptic_agreement`, `mask_iou`, `pq_against_float`, `miou_against_float`,
        `worst_offset_px`, `centers.float`, `centers.converted`, with labels
        `labeled_images`, `float.METRIC` and `converted.METRIC`, and `drop.METRIC` in
        points. None is not measured.
    """
    figures: dict[str, float | None] = {}
    for name, head in verification.heads.items():
        figures[f"{name}.max_error"] = head.max_error
        figures[f"{name}.relative_error"] = head.relative_error
        figures[f"{name}.snr_db"] = head.snr_db
    figures["class_agreement"] = verification.class_agreement
    figures["miou_against_float"] = verification.miou.miou
    if verification.has_instances:
        figures["panoptic_agreement"] = verification.panoptic_agreement
        figures["mask_iou"] = verification.mask_iou
        figures["pq_against_float"] = verification.pq.pq
    figures["worst_offset_px"] = verification.worst_offset_px
    if verification.num_centers is not None:
        for side, count in zip(
            ("float", "converted"), verification.num_centers, strict=True
        ):
            figures[f"centers.{side}"] = count
    figures["labeled_images"] = verification.num_labeled
    for side, accuracy in (
        ("float", verification.float_accuracy),
        ("converted", verification.accuracy),
    ):
        if accuracy is not None:
            figures |= _accuracy_figures(side, accuracy, verification.has_instances)
    for metric in metrics:
        if metric == "pq" and not verification.has_instances:
            continue
        try:
            figures[f"drop.{metric}"] = verification.drop(metric)
        except UsageError:  # not a metric of this model, or no labels for it
            continue
    return {
        name: None if value is None or not math.isfinite(value) else float(value)
        for name, value in figures.items()
    }


def read_certificate(metadata: ModelMetadata) -> Certificate | None:
    """Reads the certificate of a model file, None if it has none.

    Raises:
        ModelFileError: If it is damaged, or of another graph.
    """
    if metadata.certificate is None:
        return None
    certificate = Certificate.from_json(metadata.certificate)
    # A compiler for a device makes another graph of the certified one.
    source = metadata.provenance.get("compiled_of_sha256")
    if certificate.graph_sha256 not in (metadata.graph_sha256, source):
        raise ModelFileError(
            "the certificate is of another graph (its SHA-256 begins with "
            f"{_plain(certificate.graph_sha256[:_SHORT_SHA])}); convert the checkpoint "
            "again"
        )
    return certificate


def format_certificate(certificate: Certificate, *, full: bool = False) -> str:
    """Formats a certificate for people.

    Args:
        certificate: The certificate.
        full: With all digests, figures and promises.
    """
    lines = [
        f"{title:<{_LABEL_WIDTH}}{_plain(value)}"
        for title, value in summary_of(certificate, full=full).items()
    ]
    if not full:
        return "\n".join(["certificate", *(f"  {line}" for line in lines)])
    rows = head_rows(certificate.figures)
    if rows:
        width = max(len(row[0]) for row in rows) + 2
        lines.append(f"{'head':<{width}}{'max error':>12}{'relative':>12}{'SNR dB':>9}")
        lines += [
            f"{name:<{width}}{error:>12}{relative:>12}{snr:>9}"
            for name, error, relative, snr in rows
        ]
    others = other_figures(certificate.figures)
    width = max(map(len, others), default=0) + 2
    lines += [f"{name:<{width}}{value}" for name, value in others.items()]
    if certificate.promises:
        lines.append("promised")
    lines += [
        f"  {promise}, on {_plain(promise.on)}" for promise in certificate.promises
    ]
    return "\n".join(lines)


def summary_of(certificate: Certificate, *, full: bool) -> dict[str, str]:
    """Gives the lines above the figures, by title."""

    def digest(value: str) -> str:
        return f"SHA-256 {value if full else value[:_SHORT_SHA] + '...'}"

    tools = ", ".join(f"{n} {v}" for n, v in certificate.tool_versions.items())
    machine = ", ".join(filter(None, certificate.machine.values()))
    images = counted(certificate.num_images, "image")
    return {
        "source": f"{certificate.checkpoint}, {digest(certificate.checkpoint_sha256)}",
        "weights": f"license {certificate.license}",
        "graph": f"{certificate.format}, {certificate.quantization}, for "
        f"{certificate.target}, {digest(certificate.graph_sha256)}",
        "compared on": f"{images} of {certificate.data}, "
        f"{digest(certificate.inputs_sha256)}",
        "made": f"{certificate.created} on {machine}, with {tools}",
        "verdict": certificate.verdict,
    }


def head_rows(figures: Mapping[str, float | None]) -> list[tuple[str, str, str, str]]:
    """Gives name, largest error, relative error and SNR of each head, as text."""
    names = [n.removesuffix(".snr_db") for n in figures if n.endswith(".snr_db")]
    return [
        (
            _plain(name),
            _figure(figures.get(f"{name}.max_error")),
            _figure(figures.get(f"{name}.relative_error")),
            _figure(figures.get(f"{name}.snr_db"), ".1f"),
        )
        for name in sorted(names)
    ]


def other_figures(figures: Mapping[str, float | None]) -> dict[str, str]:
    """Gives all figures that are not of heads, as text by title."""
    endings = (".snr_db", ".max_error", ".relative_error")
    return {
        _plain(name): _shown(name, value)
        for name, value in figures.items()
        if not name.endswith(endings) and value is not None
    }


def _make_promises(
    figures: Mapping[str, float | None], mode: str, drop_limits: Sequence[DropLimit]
) -> tuple[Bound, ...]:
    promises = [
        Bound(f"drop.{limit.metric}", limit.points, True, ANY_IMAGES)
        for limit in drop_limits
    ]
    if mode == NONE:
        promises += [
            Bound(name, EQUAL, True, ANY_IMAGES)
            for name in figures
            if name.endswith(".relative_error")
        ]
        promises.append(Bound("class_agreement", EQUAL_CLASSES, False, ANY_IMAGES))
        return tuple(promises)
    for name, value in figures.items():
        if value is None:
            continue
        if name.endswith(".snr_db"):
            lowest = round(value - _SNR_MARGIN_DB, 2)
            promises.append(Bound(name, lowest, False, SAME_IMAGES))
        elif name.endswith("_agreement"):
            lowest = round(value - _AGREEMENT_MARGIN, 4)
            promises.append(Bound(name, lowest, False, SAME_IMAGES))
        elif name.startswith("drop."):
            highest = round(max(value, 0.0) + _DROP_MARGIN, 3)
            promises.append(Bound(name, highest, True, SAME_IMAGES))
    return tuple(promises)


def _judge(
    figures: Mapping[str, float | None], promises: Iterable[Bound], mode: str
) -> tuple[bool, str]:
    """Says whether a conversion keeps its promises, and puts it into words."""
    broken = [p for p in promises if p.is_kept(figures.get(p.figure)) is False]
    if broken:
        parts = (f"{p.figure} is {_figure(figures[p.figure])}" for p in broken)
        kind = "NOT equal to the source" if mode == NONE else "NOT as promised"
        return False, f"{kind}: {', '.join(parts)}; expected {broken[0]}"
    if mode == NONE:
        errors = [v for n, v in figures.items() if n.endswith(".relative_error")]
        worst = max((v for v in errors if v is not None), default=None)
        if worst is not None:
            return True, (
                f"equal to the source: heads differ by at most {worst:.1e} of their "
                f"size (allowed {EQUAL:g})"
            )
        return True, "equal to the source: it gives the same classes"
    drops = (
        f"{name.removeprefix('drop.')} {_change(value)}"
        for name, value in figures.items()
        if name.startswith("drop.") and value is not None
    )
    against = "labels" if figures.get("labeled_images") else "the float model"
    asked = [p for p in promises if p.on == ANY_IMAGES]
    allowed = f"; promised {', '.join(map(str, asked))}" if asked else ""
    return True, f"{', '.join(drops)} (against {against}){allowed}"


def _change(points: float) -> str:
    way = "better" if points < 0 else "worse"
    return f"{abs(points):.2f} points {way}"


def _accuracy_figures(
    side: str, accuracy: Accuracy, has_instances: bool
) -> dict[str, float | None]:
    figures = {
        "pq": accuracy.pq.pq if has_instances else None,
        "miou": accuracy.miou.miou,
        "stq": accuracy.stq,
        "depth_error": accuracy.depth_error,
    }
    return {f"{side}.{name}": v for name, v in figures.items() if v is not None}


def _promise_json(promise: Bound) -> dict[str, Any]:
    return {
        "figure": promise.figure,
        "at_most" if promise.is_upper else "at_least": promise.limit,
        "on": promise.on,
    }


def _promises(value: Any) -> tuple[Bound, ...]:
    """Takes a list of promises."""
    if not isinstance(value, list):
        raise TypeError
    promises = []
    for entry in value:
        fields = mapping(entry)
        is_upper = "at_most" in fields
        limit = number(fields.get("at_most" if is_upper else "at_least"))
        promises.append(
            Bound(text(fields.get("figure")), limit, is_upper, text(fields.get("on")))
        )
    return tuple(promises)


def _numbers_by_name(value: Any) -> dict[str, float | None]:
    """Takes an object of numbers and nulls."""
    return {
        text(name): None if entry is None else number(entry)
        for name, entry in mapping(value).items()
    }


def _texts_by_name(value: Any) -> dict[str, str]:
    """Takes an object of strings."""
    return {text(name): text(entry) for name, entry in mapping(value).items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def _figure(value: float | None, form: str = ".3g") -> str:
    return "-" if value is None else format(value, form)


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name.startswith("drop."):
        return f"{value:.2f} points"
    if name.endswith("_px"):
        return f"{value:.2f} px"
    is_count = name.startswith("centers.") or name == "labeled_images"
    return f"{value:.0f}" if is_count else f"{100 * value:.2f} %"


def _plain(value: str) -> str:
    """Takes out what would move the cursor of a terminal; files can say anything."""
    clean = "".join(c if c.isprintable() else "?" for c in value)
    return clean if len(clean) <= 4 * _MAX_TEXT else clean[: 4 * _MAX_TEXT] + "..."
