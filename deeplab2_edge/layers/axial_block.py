"""One residual block for convolution, attention and transformer.

A network is a table of blocks. `basic`, `bottleneck`, `axial` and `global_` make the
rows; `axial_block` builds one of them. Convolutional rows may use switchable atrous
convolution, and any row may end in a dual-path transformer, which exchanges
information between pixels and a memory.

References:
    Weber et al., DeepLab2, arXiv:2106.09748, section 4 (the general Axial-Block).
    He et al., Identity Mappings in Deep Residual Networks, arXiv:1603.05027.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

from deeplab2_edge.layers.activations import activate
from deeplab2_edge.layers.axial_attention import AttentionOptions, axial_attention
from deeplab2_edge.layers.conv import conv
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.dropout import drop_path
from deeplab2_edge.layers.dual_path import dual_path_transformer
from deeplab2_edge.layers.dual_path_options import DualPathOptions
from deeplab2_edge.layers.global_attention import global_attention
from deeplab2_edge.layers.squeeze_excite import simplified_squeeze_excite
from deeplab2_edge.layers.switchable_atrous import switchable_atrous_conv
from deeplab2_edge.optional import require

tf_keras: Any = require("tf_keras", extra="train")

KINDS = ("basic", "bottleneck", "axial", "global")
ATTENTION_KINDS = ("axial", "global")


@dataclass(frozen=True)
class Transformer:
    """Describes the dual-path transformer after a block.

    Attributes:
        channels: Total depth of queries and keys; see `dual_path_transformer`.
        options: Heads, expansions and paths.
    """

    channels: int
    options: DualPathOptions = field(default_factory=DualPathOptions)


@dataclass(frozen=True)
class Block:
    """Is one row of a network's table.

    Attributes:
        kind: `"basic"` (two 3x3 convolutions), `"bottleneck"` (1x1, 3x3, 1x1),
            `"axial"` or `"global"` (1x1, attention, 1x1).
        filters: Widths in order: two of a basic block, three of the others. The
            middle one of an attention block is multiplied by its expansions.
        stride: 1 or 2, in the first 3x3 convolution or the attention.
        rate: Dilation of the (first) 3x3 convolution.
        second_rate: Dilation of a basic block's second convolution.
        use_sac: Make 3x3 convolutions switchable atrous ones; not in attention blocks,
            which have none.
        use_squeeze_excite: End the branch in a simplified squeeze-and-excite.
        keep_prob: Probability that a sample keeps the branch in training.
        attention: Options of an attention block.
        transformer: What follows the block, if anything.
    """

    kind: str
    filters: tuple[int, ...]
    stride: int = 1
    rate: int = 1
    second_rate: int = 1
    use_sac: bool = False
    use_squeeze_excite: bool = False
    keep_prob: float = 1.0
    attention: AttentionOptions = field(default_factory=AttentionOptions)
    transformer: Transformer | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; must be one of {KINDS}")
        wanted = 2 if self.kind == "basic" else 3
        if len(self.filters) != wanted:
            raise ValueError(
                f"filters is {self.filters}; {self.kind} blocks have {wanted} widths"
            )
        for width in self.filters:
            _require_whole("filters", width)
        for name in ("stride", "rate", "second_rate"):
            _require_whole(name, getattr(self, name))
        if self.stride > 2:
            raise ValueError(
                f"stride is {self.stride}; must be 1 or 2: divide it among several "
                "blocks"
            )
        if self.stride > 1 and self.rate > 1:
            raise ValueError(
                f"stride is {self.stride} and rate {self.rate}; a convolution either "
                "strides or is dilated"
            )
        if not (isinstance(self.keep_prob, Real) and 0 < self.keep_prob <= 1):
            raise ValueError(
                f"keep_prob is {self.keep_prob!r}; must be a probability above 0, at "
                "most 1"
            )
        for name, type_ in (
            ("attention", AttentionOptions),
            ("transformer", Transformer),
        ):
            value = getattr(self, name)
            if not isinstance(value, type_) and (name, value) != ("transformer", None):
                raise ValueError(f"{name} is {value!r}; must be {type_.__name__}(...)")
        if self.kind in ATTENTION_KINDS:
            self._check_attention()

    def _check_attention(self) -> None:
        if self.use_sac:
            raise ValueError(
                f"use_sac is True, but {self.kind} blocks have no 3x3 convolution that "
                "could be a switchable atrous one; leave it out, or use it in a basic "
                "or bottleneck block"
            )
        heads, filters = self.attention.num_heads, self.filters[1]
        expansions = (self.attention.key_expansion, self.attention.value_expansion)
        if any(round(filters * expansion) % heads for expansion in expansions):
            multiple = math.lcm(
                *(
                    (heads / Fraction(expansion).limit_denominator(64)).numerator
                    for expansion in expansions
                    if expansion > 0
                )
            )
            raise ValueError(
                f"filters is {filters}; the {heads} heads of {self.kind} blocks share "
                f"the channels: filters must be a multiple of {multiple}"
            )


def _require_whole(name: str, value: Any) -> None:
    """Refuses what is no count; `True` is none either."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; must be a whole number of at least 1")


def basic(filters: int, **options: Any) -> Block:
    """Makes a row of two 3x3 convolutions of `4 * filters` channels each.

    Args:
        filters: Base width; every row here outputs four times its base width.
        options: Further fields of `Block`.
    """
    _require_whole("filters", filters)
    return Block("basic", (4 * filters, 4 * filters), **options)


def bottleneck(filters: int, **options: Any) -> Block:
    """Makes a row 1x1, 3x3, 1x1 of widths `filters`, `filters`, `4 * filters`."""
    _require_whole("filters", filters)
    return Block("bottleneck", (filters, filters, 4 * filters), **options)


def axial(filters: int, *, expansion: int = 2, **options: Any) -> Block:
    """Makes a row 1x1, axial attention, 1x1.

    Args:
        filters: Base width; the attention has this many channels times the
            expansions of its options.
        expansion: Width of the first 1x1 convolution, over `filters`.
        options: Further fields of `Block`.
    """
    _require_whole("filters", filters)
    _require_whole("expansion", expansion)
    return Block("axial", (filters * expansion, filters, 4 * filters), **options)


def global_(filters: int, *, expansion: int = 2, **options: Any) -> Block:
    """Makes a row 1x1, attention among all pixels, 1x1; arguments as `axial`."""
    _require_whole("filters", filters)
    _require_whole("expansion", expansion)
    options.setdefault("attention", WITHOUT_POSITIONS)
    return Block("global", (filters * expansion, filters, 4 * filters), **options)


# Attention among all pixels knows no relative positions.
WITHOUT_POSITIONS = AttentionOptions(
    use_query_rpe_similarity=False,
    use_key_rpe_similarity=False,
    retrieve_value_rpe=False,
)


def axial_block(
    x: Any,
    memory: Any = None,
    *,
    path: str,
    block: Block,
    defaults: LayerDefaults,
) -> tuple[Any, Any]:
    """Builds one row.

    The block activates its own input, and its sum is not activated: the next block
    does that.

    Args:
        x: `[B, H, W, C]`, not activated.
        memory: `[B, slots, channels]`, needed by rows with a transformer.
        path: Checkpoint path, for example `"encoder/_stage3/_block2"`.
        block: The row.
        defaults: What all layers share.

    Returns:
        `[B, ceil(H / stride), ceil(W / stride), filters[-1]]`, not activated, and the
        memory, which a transformer changes.

    Raises:
        ValueError: If a row has a transformer and there is no memory.
    """
    activated = activate(x, f"{path}/_input_activation", "relu", defaults.hard_swish)
    branch = _BRANCHES[block.kind](activated, path, block, defaults)
    if block.use_squeeze_excite:
        branch = simplified_squeeze_excite(branch, f"{path}/_squeeze_and_excite")
    branch = drop_path(branch, f"{path}/_drop_path", block.keep_prob)
    shortcut = _shortcut(activated, path, block, defaults)
    x = tf_keras.layers.Add(name=f"{path}/_add")([branch, shortcut])
    if block.transformer is None:
        return x, memory
    if memory is None:
        raise ValueError(f"{path} has a transformer, but the network has no memory")
    return dual_path_transformer(
        x,
        memory,
        f"{path}_transformer",
        block.transformer.channels,
        options=block.transformer.options,
        defaults=defaults,
        keep_prob=block.keep_prob,
    )


def _shortcut(x: Any, path: str, block: Block, defaults: LayerDefaults) -> Any:
    if int(x.shape[-1]) != block.filters[-1]:
        return conv(
            x,
            f"{path}/_shortcut",
            block.filters[-1],
            stride=block.stride,
            activation="none",
            defaults=defaults,
        )
    if block.stride > 1:
        # Every second pixel: a pooling window of one pixel.
        return tf_keras.layers.MaxPooling2D(
            1, strides=block.stride, padding="same", name=f"{path}/_subsample"
        )(x)
    return x


def _basic_branch(x: Any, path: str, block: Block, defaults: LayerDefaults) -> Any:
    wide_conv = switchable_atrous_conv if block.use_sac else conv
    x = wide_conv(
        x,
        f"{path}/_conv1_bn_act",
        block.filters[0],
        kernel_size=3,
        stride=block.stride,
        rate=block.rate,
        defaults=defaults,
    )
    return wide_conv(
        x,
        f"{path}/_conv2_bn",
        block.filters[1],
        kernel_size=3,
        rate=block.second_rate,
        activation="none",
        gamma=0.0,
        defaults=defaults,
    )


def _bottleneck_branch(x: Any, path: str, block: Block, defaults: LayerDefaults) -> Any:
    wide_conv = switchable_atrous_conv if block.use_sac else conv
    x = conv(x, f"{path}/_conv1_bn_act", block.filters[0], defaults=defaults)
    x = wide_conv(
        x,
        f"{path}/_conv2_bn_act",
        block.filters[1],
        kernel_size=3,
        stride=block.stride,
        rate=block.rate,
        defaults=defaults,
    )
    return _closing_conv(x, path, block, defaults)


def _attention_branch(x: Any, path: str, block: Block, defaults: LayerDefaults) -> Any:
    x = conv(x, f"{path}/_conv1_bn_act", block.filters[0], defaults=defaults)
    attend: Callable[..., Any] = global_attention
    if block.kind == "axial":
        attend = functools.partial(
            axial_attention, trained_size=_trained_size(x, defaults)
        )
    x = attend(
        x,
        f"{path}/_attention",
        block.filters[1],
        options=block.attention,
        stride=block.stride,
        defaults=defaults,
    )
    x = activate(x, f"{path}/_attention_activation", "relu", defaults.hard_swish)
    return _closing_conv(x, path, block, defaults)


def _trained_size(x: Any, defaults: LayerDefaults) -> tuple[int, int] | None:
    """Returns the size this feature had in training, if positions are stretched."""
    if defaults.position_stretch is None:
        return None
    height, width = (
        1 + round((side - 1) * stretch)
        for side, stretch in zip(x.shape[1:3], defaults.position_stretch, strict=True)
    )
    return height, width


def _closing_conv(x: Any, path: str, block: Block, defaults: LayerDefaults) -> Any:
    # The branch starts silent: its last normalization scales by 0 at first.
    return conv(
        x,
        f"{path}/_conv3_bn",
        block.filters[2],
        activation="none",
        gamma=0.0,
        defaults=defaults,
    )


_BRANCHES = {
    "basic": _basic_branch,
    "bottleneck": _bottleneck_branch,
    "axial": _attention_branch,
    "global": _attention_branch,
}
