"""Losses: of pixels, of depth and of masks, and the total of a model."""

from deeplab2_edge.train.losses.total import TOTAL_LOSS, ModelLoss, build_loss

__all__ = ["TOTAL_LOSS", "ModelLoss", "build_loss"]
