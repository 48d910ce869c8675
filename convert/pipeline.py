"""The whole conversion: from a checkpoint to a verified model file."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab2_edge import assets, keys
from deeplab2_edge.convert.card.facts import (
    card_paths,
    collect_facts,
    label_of,
    write_card,
)
from deeplab2_edge.convert.card.pictures import draw_comparison
from deeplab2_edge.convert.certificate import make_certificate
from deeplab2_edge.convert.coverage import coverage_notes
from deeplab2_edge.convert.job import Job, prepare, say
from deeplab2_edge.convert.merge.merging import check_maps, merge_in_graph
from deeplab2_edge.convert.options import ConversionOptions
from deeplab2_edge.convert.products import Product, convert_job
from deeplab2_edge.convert.quantization.calibration import Calibration
from deeplab2_edge.convert.quantization.ladder import Climb
from deeplab2_edge.convert.quantization.quantile import QuantileChoice
from deeplab2_edge.convert.quantization.sensitivity import Sensitivity, draw_sensitivity
from deeplab2_edge.convert.quiet import quiet_native_notes
from deeplab2_edge.convert.source import Source, inputs_of, load_source
from deeplab2_edge.convert.tflite import ConvertedGraph
from deeplab2_edge.convert.verification import Verification
from deeplab2_edge.datasets.folders import SampleLike
from deeplab2_edge.files import atomic_write
from deeplab2_edge.model_file import (
    HOST,
    Golden,
    ModelFile,
    ModelMetadata,
    read_model_file,
    write_model_file,
)
from deeplab2_edge.runtime.engine import Engine, open_engine
from deeplab2_edge.runtime.machine import peak_memory_bytes
from deeplab2_edge.samples import video_of
from deeplab2_edge.wording import counted

if TYPE_CHECKING:
    from deeplab2_edge.convert.qat import Trainer


REPORT_SUFFIX = ".report.json"
SENSITIVITY_SUFFIX = ".sensitivity.svg"
# A self test holds an image and heads; on larger canvases it outweighs the model.
_MAX_GOLDEN_PIXELS = 641 * 1281
# Fewer say little about a point of a metric.
_MANY_IMAGES = 50
# So many show that a file makes the maps that the host makes.
_IMAGES_OF_MAPS = 3


@dataclass(frozen=True, eq=False)
class ConversionResult:
    """Says what was written and how good it is.

    Attributes:
        output: The model file.
        report_path: The JSON beside it.
        metadata: As written into the file.
        file_bytes: Size of the file.
        op_counts: Number of ops by builtin name.
        calibration: For `int8`.
        verification: Comparison with the float source.
        notes: What the user should know.
        seconds: Wall time.
        peak_memory_bytes: Largest resident memory of the process so far, if known.
        float_ops: Number of ops that compute in float32, of an integer file.
        quantile: How the quantile was chosen, if it was.
        sensitivity: Which layers cost most, if it was asked for.
        tried: What was tried to keep the limits of drops.
        cards: The model card as Markdown and HTML, if it was written.
    """

    output: Path
    report_path: Path
    metadata: ModelMetadata
    file_bytes: int
    op_counts: dict[str, int]
    calibration: Calibration | None
    verification: Verification
    notes: tuple[str, ...]
    seconds: float
    peak_memory_bytes: int | None
    float_ops: Mapping[str, int] = field(default_factory=dict)
    quantile: QuantileChoice | None = None
    sensitivity: Sensitivity | None = None
    tried: Climb | None = None
    cards: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            "model": str(self.output),
            "cards": [str(path) for path in self.cards],
            "file_bytes": self.file_bytes,
            "metadata": json.loads(self.metadata.to_json()),
            "op_counts": self.op_counts,
            "float_ops": dict(self.float_ops),
            "quantile": self.quantile and self.quantile.to_json(),
            "sensitivity": self.sensitivity and self.sensitivity.to_json(),
            "tried": self.tried and self.tried.to_json(),
            "calibration": self.calibration and self.calibration.to_json(),
            "verification": self.verification.to_json(),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def convert_checkpoint(
    options: ConversionOptions,
    *,
    train: "Trainer | None" = None,
    quiet: bool = False,
) -> ConversionResult:
    """Converts a checkpoint, verifies the result and writes it with its report.

    Nothing is written unless everything succeeds.

    Args:
        options: What and how.
        train: `deeplab2_edge.train.trainer.train`, for `options.qat`.
        quiet: Whether to show no progress.

    Raises:
        UsageError: If an option makes no sense, or `int8` lacks calibration data.
        ConfigError: If the configuration is missing or wrong.
        CheckpointError: If the checkpoint is missing, damaged or of another model.
        DataError: If images cannot be used.
        ConversionError: If the conversion fails or loses more than allowed.
        OutputError: If the file cannot be written.
    """
    start = time.monotonic()
    job = prepare(options, train, quiet)
    say("building the model", quiet)
    source = load_source(options, job.config, job.prefix, job.canvas)
    say("converting", quiet)
    product = convert_job(job, source)
    converted, metadata = _write(job, product)
    result = ConversionResult(
        output=job.output,
        report_path=job.output.with_name(job.output.name + REPORT_SUFFIX),
        metadata=metadata,
        file_bytes=job.output.stat().st_size,
        op_counts=dict(converted.op_counts),
        calibration=converted.calibration,
        verification=product.verification,
        notes=(
            *_notes(job, source, product),
            *coverage_notes(converted.graph, options.target, job.output),
        ),
        seconds=time.monotonic() - start,
        peak_memory_bytes=peak_memory_bytes(),
        float_ops=converted.float_ops,
        quantile=product.quantile,
        sensitivity=product.sensitivity,
        tried=product.tried,
        cards=card_paths(job.output) if options.card else (),
    )
    if options.card:
        _write_card(job, source, product, result)
    if result.sensitivity is not None:
        drawing = job.output.with_name(job.output.name + SENSITIVITY_SUFFIX)
        with atomic_write(drawing) as temporary:
            temporary.write_text(draw_sensitivity(result.sensitivity))
    with atomic_write(result.report_path) as temporary:
        temporary.write_text(json.dumps(result.to_json(), indent=1) + "\n")
    return result


def _write(job: Job, product: Product) -> tuple[ConvertedGraph, ModelMetadata]:
    """Writes the model file, with maps if they are to be in the graph.

    Returns:
        Graph and metadata as written.
    """
    converted, engine = product.converted, product.open()
    with quiet_native_notes():
        if job.options.merge != HOST:
            converted, engine = _with_maps(job, converted, engine)
        golden = _make_golden(engine, job.verification.samples[0])
    certificate = make_certificate(
        engine.metadata,
        converted.graph,
        job.options.file_format,
        product.verification,
        weights_license=job.options.license_of_weights,
        drop_limits=job.options.drop_limits,
    )
    metadata = replace(engine.metadata, certificate=certificate.to_json())
    with atomic_write(job.output) as temporary:
        metadata = write_model_file(temporary, converted.graph, metadata, golden)
        read_model_file(temporary)  # what is written can be read
    return converted, metadata


def _write_card(
    job: Job, source: Source, product: Product, result: ConversionResult
) -> None:
    """Writes the model card, with pictures of what both models see."""
    facts = collect_facts(
        file_name=result.output.name,
        file_bytes=result.file_bytes,
        metadata=result.metadata,
        verification=result.verification,
        op_counts=result.op_counts,
        float_ops=result.float_ops,
        calibration=result.calibration,
        notes=result.notes,
    )
    with quiet_native_notes():
        pictures = draw_comparison(
            source.engine,
            product.open(),
            job.verification.samples,
            label_of(result.metadata),
        )
    write_card(result.output, facts, pictures)


def _with_maps(
    job: Job, converted: ConvertedGraph, network: Engine
) -> tuple[ConvertedGraph, Engine]:
    """Puts into the graph what makes maps of its heads."""
    say("adding the merge", job.quiet)
    merged, metadata = merge_in_graph(
        converted, network.metadata, job.options.file_format, job.options.merge
    )
    engine = open_engine(ModelFile(merged.graph, metadata))
    samples = job.verification.samples[:_IMAGES_OF_MAPS]
    check_maps(network, engine, (inputs_of(metadata, s) for s in samples))
    return merged, engine


def _notes(job: Job, source: Source, product: Product) -> tuple[str, ...]:
    """Says what the user should know about images and checkpoint."""
    notes = list(job.verification.notes)
    options = job.options
    is_asked = options.verification_data or options.calibration_data
    if not is_asked and options.checkpoint != assets.DEMO_CHECKPOINT:
        notes.append(
            "verified on rendered street scenes; give --verify-data with images like "
            "those the model will see"
        )
    samples = job.verification.samples
    if options.drop_limits and len(samples) < _MANY_IMAGES:
        notes.append(
            f"--max-drop was judged by {counted(len(samples), 'image')}, which say "
            f"little about a point; give --verify-images {_MANY_IMAGES} or more"
        )
    if source.engine.metadata.keeps_ids and not all(
        video_of(sample) is not None for sample in samples
    ):
        notes.append(
            "compared on images that are no frames of a video: what follows instances "
            "was not measured; give --verify-data with videos"
        )
    if source.unused:
        notes.append(
            f"the checkpoint holds {counted(len(source.unused), 'variable')} that the "
            f"configuration does not use, first {source.unused[0]}"
        )
    if product.metadata.provenance.get("qat_steps"):
        notes.append(
            f"{job.run_dir} holds the training with quantizers; remove it unless more "
            "steps are to follow"
        )
    if product.converted.calibration is not None:
        notes += product.converted.calibration.notes
    return tuple(notes)


def _make_golden(engine: Engine, sample: SampleLike) -> Golden | None:
    """Runs the new graph once; the device can then check that it computes the same."""
    metadata = engine.metadata
    if metadata.canvas[0] * metadata.canvas[1] > _MAX_GOLDEN_PIXELS:
        return None
    inputs = inputs_of(metadata, sample)
    # Sixteen grey levels test as well as 256, and compress to a fifth.
    inputs[keys.IMAGE] = inputs[keys.IMAGE] // 16 * 16
    outputs = engine.run(inputs)
    # A custom op may be missing elsewhere; its maps are beside what the metadata names.
    return Golden(inputs, {name: outputs[name] for name in metadata.outputs})
