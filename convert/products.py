"""Networks made of the float model, as asked or as far as a promise demands."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deeplab2_edge import checkpoints
from deeplab2_edge.convert.export import ExportedGraph, export_graph
from deeplab2_edge.convert.forms import Forms
from deeplab2_edge.convert.images import ImageSet
from deeplab2_edge.convert.job import Job, say
from deeplab2_edge.convert.modes import (
    INT8_MIXED,
    QUANTILE,
    find_mode,
    is_searched,
    supported_modes,
)
from deeplab2_edge.convert.options import DropLimit
from deeplab2_edge.convert.provenance import checkpoint_sha256
from deeplab2_edge.convert.quantization.calibration import Calibration, Inputs
from deeplab2_edge.convert.quantization.ladder import (
    Attempt,
    Climb,
    Rung,
    climb,
    refusal,
)
from deeplab2_edge.convert.quantization.quantile import MAX_IMAGES, QuantileChoice
from deeplab2_edge.convert.quantization.search import Measure, StaticSearch
from deeplab2_edge.convert.quantization.sensitivity import Sensitivity
from deeplab2_edge.convert.quiet import quiet_native_notes
from deeplab2_edge.convert.source import Source, calibration_inputs, inputs_of
from deeplab2_edge.convert.tflite import (
    ConvertedGraph,
    Quantizable,
    convert_graph,
    is_for_integers,
)
from deeplab2_edge.convert.verification import Verification, verify
from deeplab2_edge.errors import ConversionError
from deeplab2_edge.model_file import (
    ONNX,
    TFLITE,
    InputSpec,
    ModelFile,
    ModelMetadata,
)
from deeplab2_edge.models import build_model
from deeplab2_edge.models.engine import dataset_of
from deeplab2_edge.runtime.engine import Engine, open_engine
from deeplab2_edge.wording import counted

# Runs whose median is the latency of one of several ways to quantize.
_TIMED_RUNS = 5


@dataclass(frozen=True, eq=False)
class Product:
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


def convert_job(job: Job, source: Source) -> Product:
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
        from deeplab2_edge.convert.onnx.translation import convert_to_onnx as convert

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
            name: _input_spec(metadata.inputs[name], tensor, converted, name)
            for name, tensor in converted.input_names.items()
        },
        outputs={
            head: replace(metadata.outputs[head], name=tensor)
            for head, tensor in converted.output_names.items()
        },
        merge=merge,
        quantization=quantization,
    )


def _input_spec(
    spec: InputSpec, tensor: str, converted: ConvertedGraph, name: str
) -> InputSpec:
    if name in converted.pixel_ranges:
        steps = converted.pixel_ranges[name]
        return replace(spec, name=tensor, dtype="int8", range=steps)
    return replace(spec, name=tensor)


def _search(job: Job, source: Source, quantizable: Quantizable) -> Product:
    """Quantizes once, or in several ways until one keeps the limits of drops."""
    options = job.options
    search = StaticSearch(
        quantizable,
        list(_validation(job, source)),
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
    job: Job, source: Source, rungs_of: Callable[[Measure], Iterable[Rung]]
) -> Product:
    """Quantizes in several ways until one keeps the limits of drops.

    Raises:
        ConversionError: If none does.
    """
    options = job.options
    promises = options.drop_limits

    def attempt(name: str, found: Product) -> Attempt:
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
    tried = climb(rungs, promises, say=lambda text: say(text, job.quiet))
    if tried.chosen is None:
        reason = refusal(tried, has_tried_training=options.qat)
        raise ConversionError(f"{job.output}: not written: {reason}")
    chosen: Product = tried.chosen.product
    return replace(chosen, tried=tried)


def _climb_onnx(
    job: Job,
    source: Source,
    exported: ExportedGraph,
    samples: Iterable[tuple[str, Inputs]],
) -> Product:
    from deeplab2_edge.convert.onnx.quantization import OnnxQuantizable
    from deeplab2_edge.convert.onnx.translation import float_model, rungs

    measured = OnnxQuantizable.measure(float_model(exported), samples)
    quantile = job.options.calibration_quantile or QUANTILE
    return _climb(
        job,
        source,
        lambda measure: rungs(
            measured, job.options.quantization, measure, quantile=quantile
        ),
    )


def _trained(job: Job, source: Source) -> Product:
    """Trains on with quantizers in the network, and converts that."""
    # Its library is an extra that other conversions do not need.
    from deeplab2_edge.convert.qat import convert_quantized, fine_tune

    options = job.options
    assert job.train is not None
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
        validation=_validation(job, source),
        quiet=job.quiet,
    )
    say("converting the trained network", job.quiet)
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


def _validation(job: Job, source: Source) -> Iterator[tuple[str, Inputs]]:
    """Gives the images that choose the quantile of ranges."""
    few = replace(job.verification, samples=job.verification.samples[:MAX_IMAGES])
    return calibration_inputs(source.engine, few, quiet=True)


def _export(job: Job, source: Source) -> ExportedGraph:
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


def _verified(job: Job, source: Source, converted: ConvertedGraph) -> Product:
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
    return Product(converted, metadata, verification)


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


def _latency_ms(engine: Engine, job: Job) -> float:
    inputs = inputs_of(engine.metadata, job.verification.samples[0])
    engine.run(inputs)
    seconds = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        engine.run(inputs)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


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
