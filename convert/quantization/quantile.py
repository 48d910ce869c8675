"""Chooses how much of the calibration images the ranges of an int8 file cover."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from deeplab2_edge.convert.modes import INT8, TFLITE
from deeplab2_edge.convert.quantization.calibration import QUANTILE, QUANTILES, Inputs
from deeplab2_edge.convert.quantization.fidelity import head_snrs_db, run_heads
from deeplab2_edge.convert.tflite import Quantizable
from deeplab2_edge.errors import DataError

# Images to judge by; each is run once per candidate.
MAX_IMAGES = 8
# Less than this is chance, and no reason to leave the usual quantile.
MARGIN_DB = 0.3


@dataclass(frozen=True)
class QuantileChoice:
    """Says which quantile was chosen and why.

    Attributes:
        quantile: The chosen one.
        scores: Of every candidate: mean over the heads of their signal to noise
            ratio, dB, or what the caller measured; higher is better.
        num_images: How many images were compared.
    """

    quantile: float
    scores: dict[float, float]
    num_images: int

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            "quantile": self.quantile,
            "scores": {f"{q:g}": round(score, 3) for q, score in self.scores.items()},
            "images": self.num_images,
        }


def choose_quantile(
    quantizable: Quantizable,
    samples: Sequence[tuple[str, Inputs]],
    *,
    quantization: str = INT8,
    quantizer: str = TFLITE,
    keep_float: Sequence[str] = (),
    candidates: Sequence[float] = QUANTILES,
    score: Callable[[bytes], float] | None = None,
) -> QuantileChoice:
    """Quantizes with each candidate and compares the heads with the float graph's.

    Args:
        quantizable: The measured float graph.
        samples: Validation images, which were not calibrated with; the first
            `MAX_IMAGES` are used.
        quantization: `int8` or `int8-mixed`.
        quantizer: One of `modes.QUANTIZERS`.
        keep_float: See `tflite.convert_graph`.
        candidates: What to try.
        score: What to go by instead, of a flatbuffer; higher is better.

    Raises:
        DataError: If there are no samples, or they do not fit.
        ConversionError: If the quantizer fails.
    """
    compared = list(samples[:MAX_IMAGES])
    if not compared:
        raise DataError("there are no images to choose the quantile with")
    expected = run_heads(quantizable.graph, compared) if score is None else []

    def mean_snr_db(graph: bytes) -> float:
        snrs = head_snrs_db(expected, run_heads(graph, compared)).values()
        return sum(snrs) / len(snrs)

    measure = score or mean_snr_db
    scores = {
        quantile: measure(
            quantizable.quantize(
                quantization,
                quantile=quantile,
                keep_float=keep_float,
                quantizer=quantizer,
            ).graph
        )
        for quantile in candidates
    }
    best = max(scores, key=lambda quantile: scores[quantile])
    if scores.get(QUANTILE, float("-inf")) > scores[best] - MARGIN_DB:
        best = QUANTILE
    return QuantileChoice(best, scores, len(compared))
