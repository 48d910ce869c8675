"""From a decoded record to what one step of a network reads: input and targets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deeplab2_edge import keys, records
from deeplab2_edge.config import DatasetOptions
from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.optional import require
from deeplab2_edge.train.data.copy_paste import (
    CopyPasteSettings,
    paste_segments,
    pasted_label_fill,
)
from deeplab2_edge.train.data.draws import Draws
from deeplab2_edge.train.data.instances import Segments, find_segments
from deeplab2_edge.train.data.preprocessing import (
    PreprocessSettings,
    View,
    evaluation_view,
    training_view,
)
from deeplab2_edge.train.data.second_frame import motion_targets, next_frame_targets
from deeplab2_edge.train.data.targets import (
    TargetSettings,
    depth_in_metres,
    instance_targets,
    semantic_targets,
    thing_id_targets,
)
from deeplab2_edge.train.data.traced_checks import check

tf = require("tensorflow", extra="train")

Record = Mapping[str, Any]  # see `records.parse_example`

_RGB = 3


@dataclass(frozen=True)
class SampleSettings:
    """Says how a record becomes a sample.

    Attributes:
        info: The data set.
        view: How images are brought to the crop.
        targets: How targets are made.
        fields: What is read from a record.
        pasting: Which segments of a second record are pasted; None for none.
        pasted_view: How the second record is brought to the crop.
    """

    info: DatasetInfo
    view: PreprocessSettings
    targets: TargetSettings
    fields: records.RecordFields = records.RecordFields()
    pasting: CopyPasteSettings | None = None
    pasted_view: PreprocessSettings | None = None

    @classmethod
    def from_options(
        cls,
        options: DatasetOptions,
        info: DatasetInfo,
        *,
        has_instances: bool = True,
        has_depth: bool = False,
    ) -> "SampleSettings":
        """Reads the settings from the data-set options of a configuration.

        Args:
            options: The options.
            info: The data set they belong to.
            has_instances: False for semantic models.
            has_depth: True for models that predict depth.

        Raises:
            ConfigError: If options contradict each other, or ask for more cameras.
        """
        _refuse_contradictions(options, has_depth=has_depth)
        paste = options.augmentations.panoptic_copy_paste
        # A scale of 0 switches pasting off.
        is_pasting = paste is not None and paste.panoptic_copy_paste_scale > 0
        depth_fill = info.ignore_depth or 0
        return cls(
            info=info,
            view=PreprocessSettings.from_options(
                options, info.ignored_panoptic_id, depth_fill=depth_fill
            ),
            targets=TargetSettings.from_options(options, has_instances=has_instances),
            fields=records.RecordFields(
                previous_frame=options.use_two_frames,
                next_frame=options.use_next_frame,
                depth=has_depth,
            ),
            pasting=(
                CopyPasteSettings.from_options(paste)
                if paste is not None and is_pasting
                else None
            ),
            pasted_view=(
                PreprocessSettings.from_options(
                    options,
                    pasted_label_fill(info),
                    scale=paste.panoptic_copy_paste_scale,
                )
                if paste is not None and is_pasting
                else None
            ),
        )


def training_sample(
    record: Record,
    settings: SampleSettings,
    draws: Draws,
    *,
    pasted: tuple[Record, Draws] | None = None,
) -> dict[str, Any]:
    """Makes one training sample.

    Args:
        record: Decoded, with label.
        settings: How.
        draws: Decides the random events.
        pasted: A second record and its draws, if `settings.pasting` is set.

    Returns:
        `image` `[h, w, C]` float32 in 0..255: the frame, then the second frame if
        there is one, then the centers of the previous frame, in 0..1, if that is the
        second frame. Then the targets of `semantic_targets`; if there are instances
        also `panoptic_gt` `[h, w]` int32, those of `instance_targets` and, as asked
        for, of `thing_id_targets`, `next_frame_targets` (then also `next_image`) or
        `motion_targets`; `depth_gt` `[h, w, 1]` float32 metres.

    Raises:
        tf.errors.InvalidArgumentError: When run, if a label has a class that the data
            set has not, and as `thing_id_targets` and `paste_segments`.
    """
    view = training_view(_stored_view(record, settings), settings.view, draws)
    if settings.pasting is not None and settings.pasted_view is not None:
        if pasted is None:
            raise ValueError("a record to paste from is missing")
        second_record, second_draws = pasted
        second = training_view(
            _stored_view(second_record, settings), settings.pasted_view, second_draws
        )
        view = paste_segments(view, second, settings.info, settings.pasting, draws)
    targets, heatmap = _targets(view, record, settings, draws)
    image = view.image
    if heatmap is not None:
        image = tf.concat([image, heatmap[..., tf.newaxis]], axis=-1)
    return {keys.IMAGE: image} | targets


def evaluation_sample(
    record: Record, settings: SampleSettings, draws: Draws
) -> dict[str, Any]:
    """Makes one evaluation sample.

    Args:
        record: Decoded; a label is not needed.
        settings: How; random augmentation has no effect.
        draws: Decides the faults of previous centers.

    Returns:
        The entries of `training_sample`, without previous centers in the image and,
        if the record has no label, without targets. Also `resized_image` `[H', W', 3]`,
        the frame without padding, `image_name`, `size_raw` `[2]` int32, height and
        width of the stored image, `sequence_id` and `frame_id` of videos, and the
        stored labels: `semantic_raw`, `panoptic_raw` and `is_crowd_raw` `[H, W]`,
        `next_panoptic_raw`, `depth_raw` `[H, W, 1]` in metres.
    """
    stored = _stored_view(record, settings)
    resized, view = evaluation_view(stored, settings.view)
    sample = {
        keys.IMAGE: view.image,
        keys.RESIZED_IMAGE: resized[..., :_RGB],
        keys.IMAGE_NAME: record[records.IMAGE_NAME],
        keys.SIZE_RAW: tf.stack([record[records.HEIGHT], record[records.WIDTH]]),
    }
    if settings.fields.video:
        sample[keys.SEQUENCE_ID] = record[records.SEQUENCE]
        sample[keys.FRAME_ID] = record[records.FRAME]
    if stored.depth is not None:
        sample[keys.DEPTH_RAW] = depth_in_metres(stored.depth)
    if stored.label is None:
        return sample | _second_image(view, settings)

    label = stored.label[..., 0]
    segments = find_segments(label, settings.info)
    sample[keys.SEMANTIC_RAW] = segments.to_pixels(segments.classes, tf.int32)
    if settings.targets.has_instances:
        sample[keys.PANOPTIC_RAW] = label
        sample[keys.IS_CROWD_RAW] = segments.to_pixels(segments.is_crowd, tf.bool)
    if settings.fields.next_frame:
        sample[keys.NEXT_PANOPTIC_RAW] = stored.label[..., 1]
    targets, _ = _targets(view, record, settings, draws)
    return sample | targets


def _stored_view(record: Record, settings: SampleSettings) -> View:
    """Puts the frames of a record side by side as channels."""
    images, labels = [record[records.IMAGE]], [record.get(records.LABEL)]
    if settings.fields.previous_frame:
        images.append(record[records.PREV_IMAGE])
        labels.append(record.get(records.PREV_LABEL))
    if settings.fields.next_frame:
        images.append(record[records.NEXT_IMAGE])
        labels.append(record.get(records.NEXT_LABEL))
    has_labels = all(label is not None for label in labels)
    return View(
        tf.concat(images, axis=-1),
        tf.concat(labels, axis=-1) if has_labels else None,
        record[records.DEPTH] if settings.fields.depth else None,
    )


def _targets(
    view: View, record: Record, settings: SampleSettings, draws: Draws
) -> tuple[dict[str, Any], Any | None]:
    """Makes the targets of a view, and the heat map of the previous centers."""
    label = view.label
    segments = find_segments(label[..., 0], settings.info)
    _check_classes(segments, settings.info, record[records.IMAGE_NAME])
    targets = semantic_targets(segments, settings.targets)
    heatmap = None
    if settings.targets.has_instances:
        targets[keys.PANOPTIC_GT] = label[..., 0]
        targets |= instance_targets(segments, settings.targets)
        second, heatmap = _second_frame_targets(label, segments, settings, draws)
        targets |= second
    if settings.targets.max_thing_id is not None:
        targets |= thing_id_targets(
            segments, settings.targets.max_thing_id, record[records.IMAGE_NAME]
        )
    if view.depth is not None:
        targets[keys.DEPTH_GT] = depth_in_metres(view.depth)
    return targets | _second_image(view, settings), heatmap


def _second_frame_targets(
    label: Any, segments: Segments, settings: SampleSettings, draws: Draws
) -> tuple[dict[str, Any], Any | None]:
    if settings.fields.next_frame:
        following = find_segments(label[..., 1], settings.info)
        return next_frame_targets(segments, following), None
    if settings.fields.previous_frame:
        previous = find_segments(label[..., 1], settings.info)
        return motion_targets(segments, previous, settings.targets, draws)
    return {}, None


def _check_classes(segments: Segments, info: DatasetInfo, image_name: Any) -> None:
    """Refuses classes that the data set does not have, before a loss meets them."""
    is_known = (segments.classes >= 0) & (segments.classes < info.num_classes)
    is_wrong = ~is_known & ~segments.is_ignored
    check(
        ~tf.reduce_any(is_wrong),
        image_name,
        ": a pixel has the panoptic id ",
        tf.gather(segments.ids, tf.argmax(is_wrong)),
        ", of class ",
        tf.gather(segments.classes, tf.argmax(is_wrong)),
        f"; {info.name} has classes 0 to {info.num_classes - 1} and the ignored label "
        f"{info.ignore_label}, with a divisor of {info.label_divisor}",
    )


def _second_image(view: View, settings: SampleSettings) -> dict[str, Any]:
    if not settings.fields.next_frame:
        return {}
    return {keys.NEXT_IMAGE: view.image[..., _RGB:]}


def _refuse_contradictions(options: DatasetOptions, *, has_depth: bool) -> None:
    paste = options.augmentations.panoptic_copy_paste
    has_two = options.use_two_frames or options.use_next_frame
    if options.use_two_frames and options.use_next_frame:
        raise ConfigError(
            "use_two_frames and use_next_frame are both set; a sample has one second "
            "frame, so remove one of them"
        )
    if has_two and paste is not None and paste.panoptic_copy_paste_scale > 0:
        raise ConfigError(
            "augmentations.panoptic_copy_paste is set together with a second frame, "
            "which nothing can be pasted into; remove it"
        )
    if has_two and options.thing_id_mask_annotations:
        raise ConfigError(
            "thing_id_mask_annotations is set together with a second frame; remove "
            "one of them"
        )
    if has_depth and paste is not None and paste.panoptic_copy_paste_scale > 0:
        raise ConfigError(
            "augmentations.panoptic_copy_paste is set, but pasted segments have no "
            "depth; remove it for models with a depth head"
        )
    if has_depth:
        for field in ("min_resize_value", "max_resize_value"):
            if any(value > 0 for value in getattr(options, field)):
                raise ConfigError(
                    f"{field} is {list(getattr(options, field))}, but depth cannot "
                    "be resized to a range; set it to 0"
                )
    if options.cameras_to_use:
        raise ConfigError(
            "cameras_to_use is set, but records of several cameras are not read by "
            "this version; remove it"
        )
