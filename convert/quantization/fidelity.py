"""How far the heads of a flatbuffer are from those of the float graph, quickly.

Here flatbuffers run as they are, without files, metadata or merging, so that many can
be compared. What a conversion costs in the end says `verification`.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.convert.quantization.calibration import Inputs, fit_inputs
from deeplab2_edge.convert.quiet import quiet_native_notes
from deeplab2_edge.optional import require
from deeplab2_edge.runtime.engine import default_threads

tf = require("tensorflow", extra="convert")

Heads = Mapping[str, NDArray[np.float32]]

# Equal heads have no noise at all; no float32 comparison gets this far.
MAX_SNR_DB = 200.0


def run_heads(graph: bytes, samples: Sequence[tuple[str, Inputs]]) -> list[Heads]:
    """Runs a flatbuffer on samples.

    Args:
        graph: With one signature.
        samples: Names and inputs by name, without batch.

    Returns:
        For each sample its heads by name, float32.

    Raises:
        DataError: If a sample does not fit the inputs.
    """
    with warnings.catch_warnings(), quiet_native_notes():
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf\.lite\.Interp")
        interpreter = tf.lite.Interpreter(
            model_content=graph, num_threads=default_threads()
        )
        runner = interpreter.get_signature_runner()
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    found: list[Heads] = []
    for name, sample in samples:
        given = runner(**fit_inputs(name, sample, inputs))
        found.append({n: _real(given[n][0], outputs[n]) for n in sorted(outputs)})
    return found


def head_snrs_db(expected: Sequence[Heads], found: Sequence[Heads]) -> dict[str, float]:
    """Gives the signal to noise ratio of each head, median over the samples."""
    return {
        name: float(
            np.median(
                [
                    _snr_db(_shown(name, e[name]), _shown(name, f[name]))
                    for e, f in zip(expected, found, strict=True)
                ]
            )
        )
        for name in expected[0]
    }


def noise_share(snr_db: float) -> float:
    """Gives the power of the noise over that of the signal."""
    return 10 ** (-snr_db / 10)


def _real(values: NDArray[Any], details: Mapping[str, Any]) -> NDArray[np.float32]:
    real: NDArray[np.float32] = values.astype(np.float32)
    if np.issubdtype(details["dtype"], np.integer):
        scale, zero_point = details["quantization"]
        if scale:
            real = (real - zero_point) * np.float32(scale)
    return real


def _shown(name: str, values: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = values.astype(np.float64)
    # Beyond 0..1 a heatmap means nothing, and integer heads end there.
    return wide.clip(0, 1) if name == keys.CENTER_HEATMAP else wide


def _snr_db(signal: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    power = float(np.square(signal).sum())
    noise = float(np.square(other - signal).sum())
    if noise == 0.0:
        return MAX_SNR_DB
    if power == 0.0:
        return -MAX_SNR_DB
    return min(10 * math.log10(power / noise), MAX_SNR_DB)
