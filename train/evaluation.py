"""Evaluation of checkpoints with the pipeline that devices run."""

from pathlib import Path

from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.metrics.evaluation import EvaluationReport
