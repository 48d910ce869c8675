"""Losses: pixel losses, their reduction, and the total of a model."""

from deeplab2_edge.train.losses.total import TOTAL_LOSS, PanopticLoss

__all__ = ["TOTAL_LOSS", "PanopticLoss"]
