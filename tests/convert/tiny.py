"""A network small enough to convert within seconds, with weights from a formula.

It has every kind of part of the real ones: squeeze-and-excite, hard-swish, atrous
convolutions of both kinds, pooling, resizing, three heads.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.backbones import mobilenet_v3
from deeplab2_edge.backbones.mobilenet_v3 import Block
from deeplab2_edge.checkpoints import save_weights, variable_paths
from deeplab2_edge.config import ExperimentOptions, format_config, parse_config
from deeplab2_edge.models import build_model
from tests.models import synthetic_weights

SIZE = (33, 65)
_ROWS = (
    Block(3, 2, 8, endpoint="res1"),
    Block(3, 2, 8, 1, "relu", True, "res2"),
    Block(3, 2, 8, 2, "relu", False, "res3"),
    Block(5, 2, 16, 2, "hard_swish", True, "res4"),
    Block(5, 2, 16, 2, "hard_swish", True),
    Block(3, 1, 16, 2, "hard_swish", True),
    Block(1, 1, 32, endpoint="res5"),
)
_CONFIG = """
experiment_name: "tiny"
model_options {
  backbone {
    name: "mobilenet_v3_small" output_stride: 16 use_squeeze_and_excite: true
  }
  decoder {
    feature_key: "res5" decoder_channels: 8 aspp_channels: 8
    atrous_rates: 1 atrous_rates: 2 atrous_rates: 3
  }
  panoptic_deeplab {
    low_level { feature_key: "res3" channels_project: 8 }
    low_level { feature_key: "res2" channels_project: 8 }
    instance {
      instance_decoder_override {
        feature_key: "res5" decoder_channels: 8 aspp_channels: 8
        atrous_rates: 1 atrous_rates: 2 atrous_rates: 3
      }
      center_head { output_channels: 1 head_channels: 8 }
      regression_head { output_channels: 2 head_channels: 8 }
    }
    semantic_head { output_channels: 11 head_channels: 8 }
  }
}
train_dataset_options { dataset: "synthetic_street" crop_size: 33 crop_size: 65 }
eval_dataset_options { dataset: "synthetic_street" crop_size: 33 crop_size: 65 }
evaluator_options { nms_kernel: 7 stuff_area_limit: 10 }
"""


@contextlib.contextmanager
def tiny_backbone() -> Iterator[None]:
    """Makes `mobilenet_v3_small` tiny for a while."""
    with pytest.MonkeyPatch.context() as patch:
        variants = {**mobilenet_v3.VARIANTS, "mobilenet_v3_small": _ROWS}
        patch.setattr(mobilenet_v3, "VARIANTS", variants)
        yield


def tiny_config() -> ExperimentOptions:
    """Returns the experiment."""
    return parse_config(_CONFIG, source="tiny")


def build_tiny(**options: Any) -> Any:
    """Builds the tiny model with its weights."""
    with tiny_backbone():
        model = build_model(tiny_config(), input_size=SIZE, batch_size=1, **options)
    fill(model)
    return model


def fill(model: Any) -> None:
    """Gives every variable its value of `synthetic_weights`."""
    for path, variable in variable_paths(model).items():
        variable.assign(synthetic_weights.weight(path, variable.shape))


def write_tiny_checkpoint(folder: Path) -> Path:
    """Writes checkpoint and configuration the way `import-checkpoint` does."""
    save_weights(build_tiny(), folder / "ckpt")
    (folder / "config.textproto").write_text(format_config(tiny_config()))
    return folder


def picture(seed: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Draws a blocky picture, `[H, W, 3]` uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 9, 3), np.uint8)
    rows = np.arange(size[0]) * 5 // size[0]
    columns = np.arange(size[1]) * 9 // size[1]
    return coarse[rows][:, columns]
