"""What the commands that draw share: options of pictures and point clouds."""

import argparse
import math
from typing import TYPE_CHECKING

from deeplab2_edge.errors import UsageError

if TYPE_CHECKING:
    from deeplab2_edge.runtime.point_cloud import Camera
    from deeplab2_edge.runtime.views import ViewOptions

_OF_CLOUDS = ("camera", "fov", "point_colors", "view_from")


def add_drawing_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `read_drawing_options` reads."""
    parser.add_argument(
        "--save",
        metavar="LIST",
        help="pictures, separated by commas: overlay, semantic, instances, depth, "
        "point-cloud, panel (all side by side), or all; default: overlay, and depth "
        "where there is any",
    )
    parser.add_argument(
        "--camera",
        metavar="FX,FY,CX,CY|JSON",
        help="for point clouds: pinhole camera of the images in pixels",
    )
    parser.add_argument(
        "--fov",
        type=float,
        metavar="DEGREES",
        help="for point clouds, if the camera is unknown: from left to right (60)",
    )
    parser.add_argument(
        "--point-colors",
        choices=("image", "panoptic"),
        help="of point clouds (image)",
    )
    parser.add_argument(
        "--view-from",
        metavar="X,Y,Z",
        help="where the picture of a point cloud is taken from: meters right, down and "
        "forward of the camera; write --view-from=-2,-3,-4",
    )
    parser.add_argument(
        "--depth-range",
        metavar="NEAR,FAR",
        help="meters of the lightest and the darkest color of depth (2,80)",
    )


def read_drawing_options(
    args: argparse.Namespace, *, has_instances: bool, has_depth: bool, source: str
) -> "ViewOptions":
    """Turns the options into what is drawn.

    Args:
        args: Of a parser with `add_drawing_options`.
        has_instances: Whether what is drawn has instances.
        has_depth: Whether it has depth.
        source: Model or data, for messages.

    Raises:
        UsageError: If an option makes no sense, or asks for what cannot be had.
        DataError: If the camera file cannot be read.
    """
    from deeplab2_edge.runtime.draw import DEPTH_RANGE
    from deeplab2_edge.runtime.views import ViewOptions, choose_kinds, parse_kinds

    kinds = choose_kinds(
        parse_kinds(args.save) if args.save is not None else (),
        has_instances=has_instances,
        has_depth=has_depth,
        source=source,
    )
    is_cloud = "point-cloud" in kinds or (has_depth and kinds == ("panel",))
    for name in _OF_CLOUDS:
        if getattr(args, name) is not None and not is_cloud:
            raise UsageError(
                f"--{name.replace('_', '-')} is for point clouds; add "
                "--save point-cloud"
            )
    eye = _numbers(args.view_from, 3, "--view-from", "X,Y,Z, for example 2,-3,-4")
    if args.depth_range is not None and not (is_cloud or "depth" in kinds):
        raise UsageError("--depth-range is for depth; add --save depth")
    limits = _numbers(args.depth_range, 2, "--depth-range", "NEAR,FAR, as in 2,80")
    if limits is not None and not 0 < limits[0] < limits[1]:
        raise UsageError(
            f"--depth-range is {args.depth_range!r}; expected 0 < NEAR < FAR"
        )
    return ViewOptions(
        kinds,
        camera=_camera(args),
        point_colors=args.point_colors or "image",
        eye=None if eye is None else (eye[0], eye[1], eye[2]),
        depth_range=DEPTH_RANGE if limits is None else (limits[0], limits[1]),
    )


def _camera(args: argparse.Namespace) -> "Camera":
    from deeplab2_edge.runtime.point_cloud import Camera, parse_camera

    if args.camera is not None:
        if args.fov is not None:
            raise UsageError("--fov goes without --camera, which says it already")
        return parse_camera(args.camera)
    return Camera() if args.fov is None else Camera(field_of_view=args.fov)


def _numbers(
    text: str | None, count: int, option: str, expected: str
) -> list[float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise UsageError(f"{option} is {text!r}; expected {expected}")
    return numbers
