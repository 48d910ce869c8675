"""Which layers cost most when a network becomes int8.

Each group of layers is quantized alone, all else in float32, and what is then wrong in
the heads is compared with what is wrong when everything is quantized. Noise of layers
adds up, nearly, so the shares say what it would bring to keep a group in float32.

Converting and measuring happen once; each group costs one quantization, a fraction of
a second, and a few images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from deeplab2_edge.convert.modes import INT8_MIXED
from deeplab2_edge.convert.quantization.calibration import QUANTILE, Inputs
from deeplab2_edge.convert.quantization.fidelity import (
    head_snrs_db,
    noise_share,
    run_heads,
)
from deeplab2_edge.convert.quantization.float_graph import WEIGHTED, FloatGraph
from deeplab2_edge.convert.quantization.mixed import fragile_ops
from deeplab2_edge.convert.tflite import Quantizable, quantize_ops
from deeplab2_edge.errors import DataError
from deeplab2_edge.progress import progress
from deeplab2_edge.wording import counted

# More images change the order of groups little, and each is run once per group.
MAX_IMAGES = 8

_BAR_PX, _ROW_PX, _LABEL_PX = 360, 22, 330


@dataclass(frozen=True)
class LayerCost:
    """Says what a group of layers costs.

    Attributes:
        layer: Path that the names of its layers begin with.
        shares: For each head the noise of this group alone over that of all groups
            together; 0 is nothing, 1 as much as the whole.
        num_weights: Values that become int8.
    """

    layer: str
    shares: Mapping[str, float]
    num_weights: int

    @property
    def cost(self) -> float:
        """Mean share over the heads."""
        return sum(self.shares.values()) / len(self.shares)


@dataclass(frozen=True)
class Sensitivity:
    """Says which layers cost most.

    Attributes:
        quantization: The mode that was taken apart.
        snr_db: Of each head, with every group quantized.
        layers: Worst first.
        num_images: How many images were compared.
    """

    quantization: str
    snr_db: Mapping[str, float]
    layers: tuple[LayerCost, ...]
    num_images: int

    def worst(self, count: int) -> tuple[str, ...]:
        """Returns the paths of the groups that cost most."""
        return tuple(layer.layer for layer in self.layers[:count])

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            "quantization": self.quantization,
            "images": self.num_images,
            "snr_db": {name: round(snr, 2) for name, snr in self.snr_db.items()},
            "layers": [
                {
                    "layer": layer.layer,
                    "cost": round(layer.cost, 4),
                    "shares": {n: round(s, 4) for n, s in layer.shares.items()},
                    "weights": layer.num_weights,
                }
                for layer in self.layers
            ],
        }


def measure_sensitivity(
    quantizable: Quantizable,
    samples: Sequence[tuple[str, Inputs]],
    *,
    quantization: str = INT8_MIXED,
    quantile: float = QUANTILE,
    quiet: bool = False,
) -> Sensitivity:
    """Quantizes every group of layers alone and compares the heads.

    Args:
        quantizable: The measured float graph.
        samples: Images that were not calibrated with, by preference; the first
            `MAX_IMAGES` are used.
        quantization: `int8`, or `int8-mixed`, whose float parts are in no group.
        quantile: See `calibration.calibrate`.
        quiet: Whether to show no progress.

    Raises:
        DataError: If there are no samples, or they do not fit.
        ConversionError: If the quantizer fails.
    """
    compared = list(samples[:MAX_IMAGES])
    if not compared:
        raise DataError("there are no images to measure the sensitivity with")
    graph, _ = quantizable.ranged(quantile)
    always = fragile_ops(graph) if quantization == INT8_MIXED else frozenset()
    expected = run_heads(quantizable.graph, compared)

    def snrs(kept: frozenset[int], *, is_alone: bool) -> dict[str, float]:
        flat = quantize_ops(
            graph, kept, has_integer_heads=False, fill_gaps=not is_alone
        )
        return head_snrs_db(expected, run_heads(flat, compared))

    whole = snrs(always, is_alone=False)
    everything = frozenset(range(len(graph.ops)))
    groups = {
        name: ops - always for name, ops in group_layers(graph).items() if ops - always
    }
    layers = []
    for name, ops in progress(
        groups.items(), total=len(groups), label="quantizing alone", quiet=quiet
    ):
        alone = snrs(everything - ops, is_alone=True)
        shares = {
            head: noise_share(snr) / noise_share(whole[head])
            for head, snr in alone.items()
        }
        layers.append(LayerCost(name, shares, _num_weights(graph, ops)))
    layers.sort(key=lambda layer: (-layer.cost, layer.layer))
    return Sensitivity(quantization, whole, tuple(layers), len(compared))


def group_layers(graph: FloatGraph) -> dict[str, frozenset[int]]:
    """Divides the ops of a graph by the blocks they belong to.

    A block of the encoder, a part of a decoder, a head. What has no weights and no
    block of its own (resizing, joining) belongs to what comes next.

    Returns:
        Places of the ops by the path that their layers begin with.
    """
    blocks = [_block(op.layer) for op in graph.ops]
    with_weights = {
        block
        for block, op in zip(blocks, graph.ops, strict=True)
        if op.kind in WEIGHTED or op.kind == "BATCH_MATMUL"
    }
    for place in reversed(range(len(graph.ops))):
        if blocks[place] in with_weights:
            continue
        users = [
            user
            for tensor in graph.ops[place].outputs
            for user in graph.consumers.get(tensor, ())
        ]
        sources = [graph.producers.get(tensor) for tensor in graph.ops[place].inputs]
        near = min(users) if users else max(s for s in sources if s is not None)
        blocks[place] = blocks[near]
    groups: dict[str, set[int]] = {}
    for place, block in enumerate(blocks):
        groups.setdefault(block, set()).add(place)
    return {block: frozenset(places) for block, places in groups.items()}


def format_sensitivity(sensitivity: Sensitivity, count: int = 15) -> str:
    """Formats the worst groups as a table.

    Args:
        sensitivity: What was measured.
        count: How many groups to list.
    """
    heads = list(sensitivity.snr_db)
    width = max(len(layer.layer) for layer in sensitivity.layers[:count])
    images = counted(sensitivity.num_images, "image")
    columns = [max(len(head), 8) + 2 for head in heads]
    lines = [
        f"noise of each block alone, against that of all together "
        f"({sensitivity.quantization}, {images})",
        f"{'block':<{width}}{'cost':>8}"
        + "".join(f"{h:>{c}}" for h, c in zip(heads, columns, strict=True)),
    ]
    for layer in sensitivity.layers[:count]:
        lines.append(
            f"{layer.layer:<{width}}{100 * layer.cost:>7.1f}%"
            + "".join(
                f"{100 * layer.shares[h]:>{c - 1}.1f}%"
                for h, c in zip(heads, columns, strict=True)
            )
        )
    lines.append(
        f"{'SNR of all, dB':<{width}}{'':>8}"
        + "".join(
            f"{sensitivity.snr_db[h]:>{c}.1f}"
            for h, c in zip(heads, columns, strict=True)
        )
    )
    return "\n".join(lines)


def draw_sensitivity(sensitivity: Sensitivity, count: int = 30) -> str:
    """Draws the worst groups as bars.

    Returns:
        An SVG document.
    """
    layers = sensitivity.layers[:count]
    height = _ROW_PX * (len(layers) + 2)
    width = _LABEL_PX + _BAR_PX + 70
    longest = max([layer.cost for layer in layers] + [1e-9])
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="16" font-weight="bold">Noise of each block alone, share of '
        f"all ({escape(sensitivity.quantization)})</text>",
    ]
    for row, layer in enumerate(layers, start=1):
        y = _ROW_PX * row + 6
        bar = _BAR_PX * layer.cost / longest
        rows += [
            f'<text x="{_LABEL_PX - 6}" y="{y + 14}" text-anchor="end">'
            f"{escape(layer.layer)}</text>",
            f'<rect x="{_LABEL_PX}" y="{y}" width="{bar:.1f}" height="16" '
            'fill="#4477aa"/>',
            f'<text x="{_LABEL_PX + bar + 4:.1f}" y="{y + 14}">'
            f"{100 * layer.cost:.1f} %</text>",
        ]
    return "\n".join([*rows, "</svg>"]) + "\n"


def _block(layer: str) -> str:
    """Gives the block of a layer: `encoder/_stage2/_block1`, `semantic_decoder/_aspp`.

    The last layer of a head and what is before it are one block.
    """
    steps = layer.split("/")
    if steps[0] == "encoder":
        return "/".join(steps[:3])
    return "/".join(steps[:2]) if "decoder" in steps[0] else steps[0]


def _num_weights(graph: FloatGraph, ops: frozenset[int]) -> int:
    tensors = {t for place in ops for t in graph.ops[place].constants}
    return sum(graph.size(tensor) for tensor in tensors)
