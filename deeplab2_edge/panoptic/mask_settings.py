"""How the masks of a mask transformer become panoptic maps."""

from dataclasses import dataclass, fields

from deeplab2_edge.config import EvaluatorOptions, MaskwisePostProcessingOptions
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.errors import UsageError


@dataclass(frozen=True)
class MaskwiseSettings:
    """Says how whole masks are pasted, one after the other.

    Attributes:
        transformer_class_confidence_threshold_thing: Smallest class probability of a
            mask of a thing.
        transformer_class_confidence_threshold_stuff: As above, of stuff.
        overlapping_threshold: A mask is pasted if more than this part of it is free.
        reorder_class_weight: Exponent of the class probability in the order of masks.
        reorder_mask_weight: Exponent of the mean mask probability in that order.
    """

    transformer_class_confidence_threshold_thing: float = 0.7
    transformer_class_confidence_threshold_stuff: float = 0.7
    overlapping_threshold: float = 0.5
    reorder_class_weight: float = 1.0
    reorder_mask_weight: float = 0.0


@dataclass(frozen=True)
class MaskSettings:
    """Says how masks become panoptic maps. Areas are in pixels of the canvas.

    Attributes:
        thing_ids: Classes that have instances, in the order of the class logits.
        label_divisor: Panoptic ids are `class * label_divisor + number`; above the
            number of masks.
        ignore_label: Void is `ignore_label * label_divisor`.
        transformer_class_confidence_threshold: Smallest class probability of a mask;
            the pixelwise rules only.
        pixel_confidence_threshold: Pixels of at most this probability are void.
        stuff_area_limit: Smallest area of a stuff class.
        thing_area_limit: Smallest area of a thing.
        maskwise: Paste whole masks by these rules instead of deciding pixel by pixel.

    Raises:
        UsageError: On creation, if a value is out of range.
    """

    thing_ids: tuple[int, ...]
    label_divisor: int
    ignore_label: int
    transformer_class_confidence_threshold: float = 0.7
    pixel_confidence_threshold: float = 0.4
    stuff_area_limit: int = 0
    thing_area_limit: int = 0
    maskwise: MaskwiseSettings | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "thing_ids", tuple(int(c) for c in self.thing_ids))
        for name, smallest in (
            ("label_divisor", 2),
            ("ignore_label", 0),
            ("pixel_confidence_threshold", 0),
            ("stuff_area_limit", 0),
            ("thing_area_limit", 0),
        ):
            if not getattr(self, name) >= smallest:
                raise UsageError(
                    f"MaskSettings.{name} is {getattr(self, name)}; "
                    f"it must be at least {smallest}"
                )

    @classmethod
    def from_options(
        cls, options: EvaluatorOptions, dataset: DatasetInfo
    ) -> "MaskSettings":
        """Takes the settings of an experiment; areas stay those of its crop."""
        maskwise = None
        if options.transformer_post_processing == "maskwise":
            given = options.maskwise_postprocessing or MaskwisePostProcessingOptions()
            maskwise = MaskwiseSettings(
                **{f.name: getattr(given, f.name) for f in fields(MaskwiseSettings)}
            )
        return cls(
            thing_ids=dataset.thing_ids,
            label_divisor=dataset.label_divisor,
            ignore_label=dataset.ignore_label,
            transformer_class_confidence_threshold=(
                options.transformer_class_confidence_threshold
            ),
            pixel_confidence_threshold=options.pixel_confidence_threshold,
            stuff_area_limit=options.stuff_area_limit,
            thing_area_limit=options.thing_area_limit,
            maskwise=maskwise,
        )
