"""Predictions of MaX-DeepLab."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.metrics import segment_scores
from deeplab2_edge.models.engine import canvas_growth
from deeplab2_edge.panoptic import MaskSettings, decode_masks
from deeplab2_edge.train.predictors.canvas import CanvasNetwork, Predicted, undo


class MaskPredictor:
    """Decodes the masks of a mask transformer.

    Args:
        network: A MaX-DeepLab.
    """

    def __init__(self, network: CanvasNetwork) -> None:
        self._network = network
        settings = MaskSettings.from_options(
            network.config.evaluator_options, network.info
        )
        growth = canvas_growth(network.config, network.canvas)
        self._settings = dataclasses.replace(
            settings,
            stuff_area_limit=round(settings.stuff_area_limit * growth),
            thing_area_limit=round(settings.thing_area_limit * growth),
        )

    def __call__(self, image: NDArray[np.uint8]) -> Predicted:
        """Segments a `[H, W, 3]` RGB image of any size."""
        network, settings = self._network, self._settings
        canvas, placement = network.place(image)
        heads = network.run(canvas)
        maps = decode_masks(
            heads[keys.PIXEL_SPACE_MASK_LOGITS],
            heads[keys.TRANSFORMER_CLASS_LOGITS],
            canvas=network.canvas,
            settings=settings,
        )
        panoptic = undo(maps.panoptic, placement)
        return Predicted(
            semantic=undo(maps.semantic, placement),
            panoptic=panoptic,
            scores=segment_scores(
                panoptic,
                undo(maps.semantic_scores, placement),
                undo(maps.instance_scores, placement),
                ignore_label=settings.ignore_label,
                label_divisor=settings.label_divisor,
            ),
        )
