"""Procedural street scenes with exact ground truth, from seeds."""

from deeplab2_edge.synth.dataset import (
    TRAIN_SEED_START,
    VALIDATION_SEED_START,
    SynthDataset,
    SynthSample,
    render_many,
    synthetic_samples,
)
from deeplab2_edge.synth.render import render_scene, render_video
from deeplab2_edge.synth.scene import Scene

__all__ = [
    "TRAIN_SEED_START",
    "VALIDATION_SEED_START",
    "Scene",
    "SynthDataset",
    "SynthSample",
    "render_many",
    "render_scene",
    "render_video",
    "synthetic_samples",
]
