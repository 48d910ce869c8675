"""Errors of monocular depth."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, UsageError

# Largest factors between true and predicted depth, of the published evaluation.
DEPTH_THRESHOLDS = (1.25, 1.1)


@dataclass(frozen=True)
class DepthResult:
    """Holds depth errors, each the mean over images; NaN without images.

    Attributes:
        silog: Scale invariant logarithmic error, times 100.
        sq_rel: Mean of `((true - predicted) / true) ** 2`, a fraction.
        abs_rel: Mean of `abs(true - predicted) / true`, a fraction.
        inlier: Share of pixels wrong by less than a factor (1.25), a fraction.
        rmse: Root of the mean squared error, in the unit of depth.
        num_images: Images that count.
        num_skipped: Images without a pixel of known depth, which do not.
    """

    silog: float
    sq_rel: float
    abs_rel: float
    inlier: float
    rmse: float
    num_images: int
    num_skipped: int

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values; NaN becomes null."""
        return {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in asdict(self).items()
        }


class DepthError:
    """Accumulates errors of depth maps, image by image.

    Only pixels whose true depth is above 0 count. An image without any is skipped,
    and counted as such.

    References:
        Eigen et al., Depth Map Prediction from a Single Image, NeurIPS 2014,
        arXiv:1406.2283; the depth benchmark of KITTI.
    """

    def __init__(self, *, inlier_threshold: float = DEPTH_THRESHOLDS[0]) -> None:
        """Starts with no images.

        Args:
            inlier_threshold: Factor that an inlier stays below.
        """
        if inlier_threshold <= 1:
            raise UsageError(
                f"inlier_threshold is {inlier_threshold}; it must be above 1"
            )
        self.inlier_threshold = inlier_threshold
        self.sums: NDArray[np.float64] = np.zeros(5)
        self.num_images = 0
        self.num_skipped = 0

    def update(
        self, groundtruth: NDArray[np.floating], prediction: NDArray[np.floating]
    ) -> None:
        """Measures one image.

        Args:
            groundtruth: `[H, W]` depth, 0 where unknown.
            prediction: `[H, W]` depth, above 0 wherever the true depth is known.

        Raises:
            DataError: If the shapes differ, or a prediction that counts is not above
                0 and finite.
        """
        true, predicted = _known(groundtruth, prediction)
        if not true.size:
            self.num_skipped += 1
            return
        true, predicted = true.astype(np.float64), predicted.astype(np.float64)
        if not (np.isfinite(predicted) & (predicted > 0)).all():
            found = predicted[~(np.isfinite(predicted) & (predicted > 0))]
            raise DataError(
                f"depth prediction is {found[0]:g} on {found.size} pixels whose true "
                "depth is known; its logarithm needs values above 0: predict them"
            )
        log_error = np.log(predicted) - np.log(true)
        variance = max(float((log_error**2).mean() - log_error.mean() ** 2), 0.0)
        relative = (true - predicted) / true
        ratio = np.maximum(true / predicted, predicted / true)
        self.sums += (
            100 * math.sqrt(variance),
            float((relative**2).mean()),
            float(np.abs(relative).mean()),
            float((ratio < self.inlier_threshold).mean()),
            math.sqrt(float(((true - predicted) ** 2).mean())),
        )
        self.num_images += 1

    def merge(self, other: "DepthError") -> None:
        """Adds what another accumulator has measured.

        Raises:
            UsageError: If the other one has another threshold.
        """
        if self.inlier_threshold != other.inlier_threshold:
            raise UsageError("accumulators of different thresholds cannot be merged")
        self.sums += other.sums
        self.num_images += other.num_images
        self.num_skipped += other.num_skipped

    def result(self) -> DepthResult:
        """Gives the means over all images so far."""
        means = self.sums / self.num_images if self.num_images else self.sums * math.nan
        silog, sq_rel, abs_rel, inlier, rmse = means.tolist()
        return DepthResult(
            silog=silog,
            sq_rel=sq_rel,
            abs_rel=abs_rel,
            inlier=inlier,
            rmse=rmse,
            num_images=self.num_images,
            num_skipped=self.num_skipped,
        )


def count_depth_inliers(
    groundtruth: NDArray[np.floating],
    prediction: NDArray[np.floating],
    thresholds: Sequence[float],
) -> NDArray[np.int64]:
    """Counts pixels of known depth, and of these the inliers at each threshold.

    An inlier is predicted above 0 and wrong by at most the factor of the threshold.

    Args:
        groundtruth: `[H, W]` depth, 0 where unknown.
        prediction: `[H, W]` depth.
        thresholds: `[T]`, each at least 1.

    Returns:
        `[1 + T]`: known pixels, then inliers.

    Raises:
        DataError: If the shapes differ.
    """
    true, predicted = _known(groundtruth, prediction)
    count = true.size
    is_above = predicted > 0
    true, predicted = true[is_above], predicted[is_above]
    ratio = np.maximum(true / predicted, predicted / true)
    return np.array([count, *((ratio <= t).sum() for t in thresholds)], np.int64)


def _known(
    groundtruth: NDArray[np.floating], prediction: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    if groundtruth.shape != prediction.shape:
        raise DataError(
            f"depth prediction has shape {prediction.shape}; expected "
            f"{groundtruth.shape}, the shape of the ground truth"
        )
    is_known = groundtruth > 0
    return groundtruth[is_known], prediction[is_known]
