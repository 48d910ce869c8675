"""Keeps the ids of instances over the frames of a video, for models of one image."""

import dataclasses

from deeplab2_edge.panoptic import IouTracker, IouTrackingSettings
from deeplab2_edge.runtime.classes import Classes
from deeplab2_edge.runtime.results import PanopticResult, renumber


class ResultTracker:
    """Gives the instances of results ids that stay the same over a video.

    Args:
        classes: Of the model.

    References:
        `panoptic.IouTracker`: instances of two frames that overlap are one.
    """

    def __init__(self, classes: Classes) -> None:
        settings = IouTrackingSettings(classes.thing_ids, classes.label_divisor)
        # Track ids are never used twice: there must be room for those of all frames.
        divisor = max(settings.track_divisor, classes.label_divisor)
        self._settings = dataclasses.replace(settings, track_divisor=divisor)
        self._tracker = IouTracker(self._settings)

    def begin_video(self) -> None:
        """Forgets all instances."""
        self._tracker.reset()

    def __call__(self, result: PanopticResult) -> PanopticResult:
        """Takes the next frame of the video.

        Raises:
            UsageError: If the video has more instances than ids.
        """
        tracked = self._tracker.update(result.panoptic)
        return renumber(result, tracked.panoptic, self._settings.track_divisor)
