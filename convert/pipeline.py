"""The whole conversion: from a checkpoint to a verified model file."""

import itertools
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import assets, checkpoints, keys
from deeplab2_edge.config import ExperimentOptions, load_config
from deeplab2_edge.config.sizes import expected_size, fits_stride
from deeplab2_edge.config.validate import validate_config
from deeplab2_edge.convert.calibration import Calibration, Inputs
from deeplab2_edge.convert.card import (
    card_paths,
    collect_facts,
    label_of,
    write_card,
)
from deeplab2_edge.convert.card_pictures import draw_comparison
from deeplab2_edge.convert.certificate import make_certificate
from deeplab2_edge.convert.coverage import check_network, coverage_notes
from deeplab2_edge.convert.export import ExportedGraph, export_graph
from deeplab2_edge.convert.forms import Forms
from deeplab2_edge.convert.images import ImageSet, open_data
from deeplab2_edge.convert.ladder import (
    Attempt,
    Climb,
    Promise,
    Rung,
    climb,
    refusal,
)
from deeplab2_edge.convert.merging import check_maps, merge_in_graph
from deeplab2_edge.convert.modes import (
    INT8_MIXED,
    QUANTILE,
    find_mode,
    is_searched,
    supported_modes,
)
from deeplab2_edge.convert.options import (
    ConversionOptions,
    DropLimit,
    check_limits,
    check_merge,
    check_options,
)
from deeplab2_edge.convert.provenance import checkpoint_sha256, describe_provenance
from deeplab2_edge.convert.quantile import MAX_IMAGES, QuantileChoice
from deeplab2_edge.convert.quiet import quiet_native_notes
from deeplab2_edge.convert.recording import Recorder
from deeplab2_edge.convert.search import Measure, StaticSearch
from deeplab2_edge.convert.sensitivity import Sensitivity, draw_sensitivity
from deeplab2_edge.convert.tflite import (
    ConvertedGraph,
    Quantizable,
    convert_graph,
    is_for_integers,
)
from deeplab2_edge.convert.verification import Verification, verify
from deeplab2_edge.datasets.folders import SampleLike
from deeplab2_edge.errors import (
    CheckpointError,
    ConfigError,
    ConversionError,
    OutputError,
    UsageError,
)
from deeplab2_edge.experiments import find_config
from deeplab2_edge.families import MOTION, TWO_FRAMES, abilities_of, family_of
from deeplab2_edge.files import atomic_write, ensure_output_dir
from deeplab2_edge.model_file import (
    HOST,
    MAX_CANVAS_PIXELS,
    ONNX,
    TFLITE,
    Golden,
    ModelFile,
    ModelMetadata,
    is_picture,
    read_model_file,
    write_model_file,
)
from deeplab2_edge.models import build_model
from deeplab2_edge.models.engine import KerasEngine, dataset_of
from deeplab2_edge.progress import progress
from deeplab2_edge.runtime.engine import Engine, open_engine
from deeplab2_edge.runtime.machine import peak_memory_bytes
from deeplab2_edge.runtime.predictors import CanvasEngine
from deeplab2_edge.runtime.preprocess import place_on_canvas
from deeplab2_edge.runtime.segmenter import PanopticSegmenter
from deeplab2_edge.samples import SYNTHETIC, video_of
from deeplab2_edge.wording import counted

if TYPE_CHECKING:
    from deeplab2_edge.convert.qat import Trainer

REPORT_SUFFIX = ".report.json"
RUN_SUFFIX = ".qat"
SENSITIVITY_SUFFIX = ".sensitivity.svg"
# Runs whose median is the latency of one of several ways to quantize.
_TIMED_RUNS = 5
# A self test holds an image and heads; on larger canvases it outweighs the model.
_MAX_GOLDEN_PIXELS = 641 * 1281
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
    job = _prepare(options, train, quiet)
    _say("building the model", quiet)
    source = _load_source(job)
    _say("converting", quiet)
    product = _convert(job, source)
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


def choose_canvas(
    config: ExperimentOptions, asked: tuple[int, int] | None
) -> tuple[int, int]:
    """Returns the size of the input: what was asked for, or the evaluation crop.

    Raises:
        UsageError: If a side is not `k * output_stride + 1`, or the canvas is too
            large; the message gives the nearest size that fits.
        ConfigError: If nothing was asked for and the configuration has no crop.
    """
    stride = config.model_options.backbone.output_stride
    place = "--input-size"
    if asked is None:
        crop = config.eval_dataset_options.crop_size
        place = "eval_dataset_options.crop_size"
        if len(crop) != 2:
            raise ConfigError(
                f"{place} is {list(crop)}; expected height and width of the input, "
                "or give --input-size"
            )
        asked = (crop[0], crop[1])
    if not fits_stride(asked, stride):
        raise UsageError(
            f"{place} is {asked[0]}x{asked[1]} (height x width); expected "
            f"{expected_size(asked, stride, as_option=True)}"
        )
    if asked[0] * asked[1] > MAX_CANVAS_PIXELS:
        raise UsageError(
            f"{place} is {asked[0]}x{asked[1]}; a canvas has at most "
            f"{MAX_CANVAS_PIXELS} pixels"
        )
    return asked


@dataclass(frozen=True, eq=False)
class _Job:
    """Is a conversion whose options have been checked and whose images are found.

    Attributes:
        options: As given.
        prefix: Of the checkpoint.
        config: Its experiment.
        canvas: (height, width) of the input.
        output: The model file, in a folder that is there.
        calibration: For `int8`.
        verification: Images to compare with.
        train: See `convert_checkpoint`.
        quiet: Whether to show no progress.
    """

    options: ConversionOptions
    prefix: str
    config: ExperimentOptions
    canvas: tuple[int, int]
    output: Path
    calibration: ImageSet | None
    verification: ImageSet
    train: "Trainer | None"
    quiet: bool

    @property
    def run_dir(self) -> Path:
        """Where training with quantizers keeps what it needs to go on."""
        return self.output.with_name(self.output.name + RUN_SUFFIX)


@dataclass(frozen=True, eq=False)
class _Source:
    """Is the float model that is converted.

    Attributes:
        engine: With the weights of the checkpoint, in the forms it was trained in.
        unused: Variables of the checkpoint that it does not have.
    """

    engine: KerasEngine
    unused: tuple[str, ...]


def _prepare(options: ConversionOptions, train: "Trainer | None", quiet: bool) -> _Job:
    """Finds all that can be wrong before anything takes long."""
    check_options(options)
    prefix = checkpoints.resolve_checkpoint(options.checkpoint)
    config = load_config(find_config(options.checkpoint, options.config))
    check_limits(options, family_of(config))
    check_network(config.model_options.backbone, options.target)
    check_merge(options, family_of(config))
    if options.qat:
        _check_training(options, config, train)
    calibration_data = _calibration_data(options)
    info = dataset_of(config)
    validate_config(config, info, needs=("model_options",))
    canvas = choose_canvas(config, options.canvas)
    output = _check_output(
        options.output or _default_output(options, config, prefix, canvas)
    )
    calibration, verification = open_data(
        info,
        canvas,
        calibration_data=calibration_data,
        calibration_images=options.calibration_images,
        verification_data=options.verification_data or options.calibration_data,
        verification_images=options.verification_images,
        in_order=abilities_of(config).keeps_ids,
    )
    return _Job(
        options, prefix, config, canvas, output, calibration, verification, train, quiet
    )


def _check_training(
    options: ConversionOptions, config: ExperimentOptions, train: "Trainer | None"
) -> None:
    from deeplab2_edge.convert.qat import check_fine_tuning

    if train is None:
        raise UsageError(
            "qat needs the trainer; give train=deeplab2_edge.train.trainer.train"
        )
    check_fine_tuning(config, steps=options.qat_steps, data=options.qat_data)


def _load_source(job: _Job) -> _Source:
    checkpoint = job.options.checkpoint
    with quiet_native_notes():
        model = build_model(job.config, input_size=job.canvas, batch_size=1)
        loaded = checkpoints.load_weights(model, checkpoint)
    _check_weights(model, job.prefix)
    provenance = describe_provenance(job.config, checkpoint, job.prefix)
    engine = KerasEngine(model, job.config, provenance=provenance)
    return _Source(engine, loaded.unexpected)


def _export(job: _Job, source: _Source) -> ExportedGraph:
    """Traces the network in the forms of the target."""
    options = job.options
    forms = options.forms
    model = source.engine.network.model
    if forms.build_options() != Forms().build_options():
        with quiet_native_notes():
            model = build_model(
                job.config,
                input_size=job.canvas,
                batch_size=1,
                **forms.build_options(),
            )
            checkpoints.load_weights(model, options.checkpoint)
    return export_graph(
        model,
        job.config,
        for_integers=options.file_format == TFLITE
        and is_for_integers(options.quantization),
        forms=forms,
    )


@dataclass(frozen=True, eq=False)
class _Product:
    """Is a converted network and how it compares with its source.

    Attributes:
        converted: The network.
        metadata: Of its file.
        verification: Comparison with the float source.
        quantile: See `ConversionResult`, as all that follows.
    """

    converted: ConvertedGraph
    metadata: ModelMetadata
    verification: Verification
    quantile: QuantileChoice | None = None
    sensitivity: Sensitivity | None = None
    tried: Climb | None = None

    def open(self) -> Engine:
        """Opens the network."""
        return open_engine(ModelFile(self.converted.graph, self.metadata))


def _convert(job: _Job, source: _Source) -> _Product:
    """Converts as asked, or as far from it as the limits of drops demand.

    Raises:
        ConversionError: If the conversion fails, or nothing keeps the limits.
    """
    options = job.options
    if options.qat and not options.drop_limits:
        return _trained(job, source)
    exported = _export(job, source)
    samples = calibration_inputs(source.engine, job.calibration, quiet=job.quiet)
    if is_searched(options.quantization, options.file_format):
        return _search(job, source, Quantizable.measure(exported, samples))
    if options.file_format == ONNX:
        # Its tools are an extra that TFLite files do not need.
        from deeplab2_edge.convert.onnx import convert_to_onnx as convert

        if options.drop_limits and find_mode(options.quantization).needs_calibration:
            return _climb_onnx(job, source, exported, samples)
    else:
        convert = convert_graph
    converted = convert(
        exported,
        options.quantization,
        calibration=samples,
        quantile=options.calibration_quantile or QUANTILE,
    )
    product = _verified(job, source, converted)
    _check_drop(product.verification, options.drop_limits, job.output)
    return product


def _search(job: _Job, source: _Source, quantizable: Quantizable) -> _Product:
    """Quantizes once, or in several ways until one keeps the limits of drops."""
    options = job.options
    few = replace(job.verification, samples=job.verification.samples[:MAX_IMAGES])
    search = StaticSearch(
        quantizable,
        list(calibration_inputs(source.engine, few, quiet=True)),
        quantization=options.quantization,
        quantizer=options.quantizer,
        quantile=options.calibration_quantile,
        may_mix=INT8_MIXED in supported_modes(options.file_format, options.target),
        quiet=job.quiet,
    )
    if options.drop_limits:
        product = _climb(job, source, search.rungs)
    else:
        product = _verified(job, source, search.convert())
    choice = search.choice if options.calibration_quantile is None else None
    return replace(
        product,
        quantile=product.quantile or choice,
        sensitivity=search.sensitivity if options.sensitivity else None,
    )


def _climb(
    job: _Job, source: _Source, rungs_of: Callable[[Measure], Iterable[Rung]]
) -> _Product:
    """Quantizes in several ways until one keeps the limits of drops.

    Raises:
        ConversionError: If none does.
    """
    options = job.options
    promises = [Promise(limit.metric, limit.points) for limit in options.drop_limits]

    def attempt(name: str, found: _Product) -> Attempt:
        return Attempt(
            name,
            len(found.converted.graph),
            {p.metric: found.verification.drop(p.metric) for p in promises},
            latency_ms=_latency_ms(found.open(), job),
            product=found,
        )

    def measure(name: str, converted: ConvertedGraph) -> Attempt:
        return attempt(name, _verified(job, source, converted))

    rungs = rungs_of(measure)
    if options.qat:
        name = f"int8, {counted(options.qat_steps, 'step')} of training"
        last = Rung(name, lambda: attempt(name, _trained(job, source)))
        rungs = itertools.chain(rungs, [last])
    tried = climb(rungs, promises, say=lambda text: _say(text, job.quiet))
    if tried.chosen is None:
        reason = refusal(tried, has_tried_training=options.qat)
        raise ConversionError(f"{job.output}: not written: {reason}")
    chosen: _Product = tried.chosen.product
    return replace(chosen, tried=tried)


def _climb_onnx(
    job: _Job,
    source: _Source,
    exported: ExportedGraph,
    samples: Iterable[tuple[str, Inputs]],
) -> _Product:
    from deeplab2_edge.convert.onnx import float_model, rungs
    from deeplab2_edge.convert.onnx_quantize import OnnxQuantizable

    measured = OnnxQuantizable.measure(float_model(exported), samples)
    quantile = job.options.calibration_quantile or QUANTILE
    return _climb(
        job,
        source,
        lambda measure: rungs(
            measured, job.options.quantization, measure, quantile=quantile
        ),
    )


def _trained(job: _Job, source: _Source) -> _Product:
    """Trains on with quantizers in the network, and converts that."""
    # Its library is an extra that other conversions do not need.
    from deeplab2_edge.convert.qat import convert_quantized, fine_tune

    options = job.options
    assert job.train is not None
    few = replace(job.verification, samples=job.verification.samples[:MAX_IMAGES])
    tuned = fine_tune(
        job.config,
        options.checkpoint,
        calibration_inputs(source.engine, job.calibration, quiet=job.quiet),
        canvas=job.canvas,
        steps=options.qat_steps,
        run_dir=job.run_dir,
        train=job.train,
        data=options.qat_data,
        quantile=options.calibration_quantile,
        validation=calibration_inputs(source.engine, few, quiet=True),
        quiet=job.quiet,
    )
    _say("converting the trained network", job.quiet)
    product = _verified(job, source, convert_quantized(tuned))
    training: dict[str, Any] = {"qat_steps": tuned.steps}
    if tuned.steps:
        training["qat_checkpoint_sha256"] = checkpoint_sha256(tuned.checkpoint)
    metadata = product.metadata
    provenance = {**metadata.provenance, **training}
    return replace(
        product,
        metadata=replace(metadata, provenance=provenance),
        quantile=tuned.quantile,
    )


def _latency_ms(engine: Engine, job: _Job) -> float:
    inputs = _inputs_of(engine.metadata, job.verification.samples[0])
    engine.run(inputs)
    seconds = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        engine.run(inputs)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def _verified(job: _Job, source: _Source, converted: ConvertedGraph) -> _Product:
    """Compares a converted network with its source."""
    options, images = job.options, job.verification
    metadata = describe_converted(
        source.engine.metadata, converted, converted.quantization
    )
    metadata = replace(metadata, target=options.target)
    if job.calibration is not None and converted.calibration is not None:
        metadata = _with_calibration(metadata, job.calibration, converted.calibration)
    with quiet_native_notes():
        verification = verify(
            source.engine,
            open_engine(ModelFile(converted.graph, metadata)),
            images.samples,
            location=images.location,
            labels_of=dataset_of(job.config) if images.has_labels else None,
            quiet=job.quiet,
        )
    return _Product(converted, metadata, verification)


def _write(job: _Job, product: _Product) -> tuple[ConvertedGraph, ModelMetadata]:
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
    job: _Job, source: _Source, product: _Product, result: ConversionResult
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
    job: _Job, converted: ConvertedGraph, network: Engine
) -> tuple[ConvertedGraph, Engine]:
    """Puts into the graph what makes maps of its heads."""
    _say("adding the merge", job.quiet)
    merged, metadata = merge_in_graph(
        converted, network.metadata, job.options.file_format, job.options.merge
    )
    engine = open_engine(ModelFile(merged.graph, metadata))
    samples = job.verification.samples[:_IMAGES_OF_MAPS]
    check_maps(network, engine, (_inputs_of(metadata, s) for s in samples))
    return merged, engine


def _notes(job: _Job, source: _Source, product: _Product) -> tuple[str, ...]:
    """Says what the user should know about images and checkpoint."""
    notes = list(job.verification.notes)
    options = job.options
    is_asked = options.verification_data or options.calibration_data
    if not is_asked and options.checkpoint != assets.DEMO_CHECKPOINT:
        notes.append(
            "verified on rendered street scenes; give --verify-data with images like "
            "those the model will see"
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


def _calibration_data(options: ConversionOptions) -> str | None:
    """Says where calibration images come from, None if none are needed."""
    if not find_mode(options.quantization).needs_calibration:
        return None
    if options.calibration_data is not None:
        return options.calibration_data
    if options.checkpoint == assets.DEMO_CHECKPOINT:
        return f"{SYNTHETIC}:train"
    raise UsageError(
        f"--quantize {options.quantization} needs --calibration-data: a folder with "
        "50 to 200 images like those the model will see, or record files; labels are "
        "not needed. "
        "Without such images use --quantize dynamic"
    )


def _check_weights(model: Any, prefix: str) -> None:
    for path, variable in checkpoints.variable_paths(model).items():
        if not np.isfinite(variable.numpy()).all():
            raise CheckpointError(
                f"{prefix}: {path} holds values that are not finite: the training "
                "diverged or the file is damaged; take an earlier checkpoint"
            )


def _default_output(
    options: ConversionOptions,
    config: ExperimentOptions,
    prefix: str,
    canvas: tuple[int, int],
) -> str:
    name = config.experiment_name
    if options.checkpoint == assets.DEMO_CHECKPOINT:
        name = assets.DEMO_CHECKPOINT
    elif not re.fullmatch(r"[\w.-]+", name):  # missing, or a placeholder
        name = Path(prefix).name
    return (
        f"{name}_{canvas[0]}x{canvas[1]}_{options.quantization}.{options.file_format}"
    )


def _check_output(location: str | os.PathLike[str]) -> Path:
    output = Path(location)
    if output.is_dir():
        raise OutputError(f"{output}: a folder; give the name of the model file")
    ensure_output_dir(output.parent)
    return output


def describe_converted(
    metadata: ModelMetadata, converted: ConvertedGraph, quantization: str
) -> ModelMetadata:
    """Gives the metadata of a converted graph.

    Args:
        metadata: Of the float model.
        converted: The graph.
        quantization: One of `modes.MODE_NAMES`.
    """
    merge = metadata.merge
    if merge is not None:
        # Without this each flat peak would be several centers.
        has_plateaus = find_mode(quantization).has_plateaus
        merge = replace(merge, merge_plateaus=has_plateaus)
    return replace(
        metadata,
        inputs={
            name: replace(metadata.inputs[name], name=tensor)
            for name, tensor in converted.input_names.items()
        },
        outputs={
            head: replace(metadata.outputs[head], name=tensor)
            for head, tensor in converted.output_names.items()
        },
        merge=merge,
        quantization=quantization,
    )


def _with_calibration(
    metadata: ModelMetadata, images: ImageSet, calibration: Calibration
) -> ModelMetadata:
    """Adds what set the ranges, without names of files."""
    summary = {
        "data": Path(images.location).name,
        "images": len(calibration.image_names),
        "used": calibration.num_used,
        "quantile": calibration.quantile,
    }
    return replace(metadata, provenance={**metadata.provenance, "calibration": summary})


def calibration_inputs(
    engine: KerasEngine, images: ImageSet | None, *, quiet: bool
) -> Iterator[tuple[str, Inputs]]:
    """Gives what a network sees of images, as devices give it to them.

    Frames of videos go through the float network one after the other, since what it
    says of one is an input with the next.

    Args:
        engine: The float model.
        images: The images; None gives nothing.
        quiet: Report no progress.
    """
    samples = images.samples if images else ()
    steps = progress(samples, total=len(samples), label="calibrating", quiet=quiet)
    if engine.metadata.family not in (MOTION, TWO_FRAMES):
        canvas = CanvasEngine(engine)
        for sample in steps:
            pixels, _ = canvas.place(sample.load_image())
            yield sample.name, {keys.IMAGE: pixels}
        return
    for _, video in itertools.groupby(steps, key=video_of):
        frames = list(video)
        recorder = Recorder(engine)
        clip = PanopticSegmenter(recorder).segment_video(s.load_image() for s in frames)
        names = (sample.name for sample in frames)
        for _ in clip:
            for inputs in recorder.take_inputs():
                yield next(names), inputs


def _make_golden(engine: Engine, sample: SampleLike) -> Golden | None:
    """Runs the new graph once; the device can then check that it computes the same."""
    metadata = engine.metadata
    if metadata.canvas[0] * metadata.canvas[1] > _MAX_GOLDEN_PIXELS:
        return None
    inputs = _inputs_of(metadata, sample)
    # Sixteen grey levels test as well as 256, and compress to a fifth.
    inputs[keys.IMAGE] = inputs[keys.IMAGE] // 16 * 16
    outputs = engine.run(inputs)
    # A custom op may be missing elsewhere; its maps are beside what the metadata names.
    return Golden(inputs, {name: outputs[name] for name in metadata.outputs})


def _inputs_of(metadata: ModelMetadata, sample: SampleLike) -> dict[str, NDArray[Any]]:
    """Gives what the network takes for an image without a past."""
    inputs: dict[str, NDArray[Any]] = {
        name: np.zeros(spec.shape, np.uint8 if is_picture(name) else np.float32)
        for name, spec in metadata.inputs.items()
    }
    inputs[keys.IMAGE], _ = place_on_canvas(
        sample.load_image(), metadata.canvas, metadata.resize
    )
    return inputs


def _check_drop(
    verification: Verification, limits: Sequence[DropLimit], output: Path
) -> None:
    for limit in limits:
        drop = verification.drop(limit.metric)
        if drop > limit.points:
            against = (
                f"labels of {counted(verification.num_labeled, 'image')}"
                if verification.accuracy
                else "the float model"
            )
            raise ConversionError(
                f"{output}: not written: {limit.metric} drops by {drop:.2f} points "
                f"(against {against} of {verification.source}), --max-drop allows "
                f"{limit.points:g}; calibrate with more typical images, or quantize "
                "less (dynamic, fp16)"
            )


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        print(text, file=sys.stderr, flush=True)
