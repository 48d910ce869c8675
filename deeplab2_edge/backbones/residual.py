"""Networks of residual blocks: a stem and stages, as a table.

The published networks compile to such tables (see `resnet`), and own ones are written
as one.
"""

import functools
from dataclasses import dataclass
from numbers import Real
from typing import Any

from deeplab2_edge.layers import stem as stems
from deeplab2_edge.layers.activations import activate
from deeplab2_edge.layers.axial_block import Block, axial_block
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.recompute import recomputed


@dataclass(frozen=True)
class Stage:
    """Is a run of blocks whose output is an endpoint.

    Attributes:
        name: Checkpoint edge below the encoder, for example `"_stage3"`; the endpoint
            has the same name without the underscore.
        blocks: Rows in order.
    """

    name: str
    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name is {self.name!r}; must be text such as '_stage3'")
        _require_tuple("blocks", self.blocks, Block)


@dataclass(frozen=True)
class Network:
    """Is a residual network as a table.

    Attributes:
        stages: In order. The output of `_stage3` is the endpoint `stage3`, and its
            activated form `res3`.
        stem: `"resnet"`, `"resnet_beta"` or `"wider_resnet"`, see `layers.stem`.
        stem_width_multiplier: Of the stem's channels.
    """

    stages: tuple[Stage, ...]
    stem: str = "resnet"
    stem_width_multiplier: float = 1.0

    def __post_init__(self) -> None:
        _require_tuple("stages", self.stages, Stage)
        if not self.stages:
            raise ValueError("stages is empty; a network has at least one stage")
        names = [stage.name for stage in self.stages]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"two stages are named {twice[0]!r}; names are checkpoint paths and "
                "must differ"
            )
        if self.stem not in stems.KINDS:
            raise ValueError(
                f"stem is {self.stem!r}; must be one of {', '.join(stems.KINDS)}"
            )
        width = self.stem_width_multiplier
        if not isinstance(width, Real) or not width > 0:
            raise ValueError(
                f"stem_width_multiplier is {width!r}; must be a number above 0"
            )


def _require_tuple(name: str, value: Any, kind: type) -> None:
    """Refuses one member where a tuple of them belongs, and members of another kind."""
    if isinstance(value, kind):
        raise ValueError(
            f"{name} is one {kind.__name__}; {name} must be a tuple: is a comma "
            f"missing? ({kind.__name__.lower()},)"
        )
    if not isinstance(value, tuple | list):
        raise ValueError(f"{name} is {value!r}; must be a tuple of {kind.__name__}")
    for member in value:
        if not isinstance(member, kind):
            raise ValueError(
                f"{name} holds {member!r}; must hold {kind.__name__} alone"
            )


def build_network(
    image: Any,
    network: Network,
    *,
    defaults: LayerDefaults,
    memory: Any = None,
    path: str = "encoder",
) -> tuple[dict[str, Any], Any]:
    """Builds a network of residual blocks.

    Args:
        image: `[B, H, W, C]`, normalized.
        network: The table.
        defaults: What all layers share.
        memory: `[B, slots, channels]`, for rows with a transformer.
        path: Checkpoint path of the encoder.

    Returns:
        Endpoints and the memory. `stage1` is the stem unless the table has a stage of
        that name; `resK` is the activated `stageK`, `backbone_output` the last one.
    """
    x = stems.stem(
        image,
        f"{path}/_stem",
        network.stem,
        network.stem_width_multiplier,
        defaults=defaults,
    )
    stages = {"stage1": x}
    for stage in network.stages:
        x, memory = build_stage(x, stage, defaults=defaults, memory=memory, path=path)
        stages[stage.name.lstrip("_")] = x
    endpoints = dict(stages)
    for name, feature in stages.items():
        activated = name.replace("stage", "res")
        endpoints[activated] = activate(
            feature, f"{path}/{activated}", "relu", defaults.hard_swish
        )
    last = network.stages[-1].name.lstrip("_").replace("stage", "res")
    endpoints["backbone_output"] = endpoints[last]
    return endpoints, memory


def build_stage(
    x: Any, stage: Stage, *, defaults: LayerDefaults, memory: Any, path: str
) -> tuple[Any, Any]:
    """Builds the blocks of one stage; arguments as `build_network`."""
    for index, block in enumerate(stage.blocks, start=1):
        block_path = f"{path}/{stage.name}/_block{index}"
        build = functools.partial(
            axial_block, path=block_path, block=block, defaults=defaults
        )
        if not defaults.recompute:
            x, memory = build(x, memory)
        elif block.transformer is None:
            name = f"{block_path}/_recompute"
            x = recomputed(lambda x, build=build: build(x)[0], [x], name)
        else:
            x, memory = recomputed(build, [x, memory], f"{block_path}/_recompute")
    return x, memory
