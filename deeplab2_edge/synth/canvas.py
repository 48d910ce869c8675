"""A z-buffered canvas that paints polygons and textured parallelograms.

One mask decides color, label and depth of a pixel, so the labels fit the picture
exactly. On a plane the inverse depth is linear in pixel coordinates, which is why
the buffer holds inverse depths.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.synth.camera import NEAR, Camera, clip_near, cross

# Details lie in the plane of their surface; they win if nearly as close as it.
_DEPTH_SLACK = 0.9995
_SUBPIXEL_BITS = 4
_COORDINATE_LIMIT = 20000.0  # pixels; beyond, fixed-point corners would overflow

Color = Sequence[float] | NDArray[Any]


class Canvas:
    """Holds the picture while it is painted.

    Attributes:
        image: `[H, W, 3]` uint8 RGB.
        panoptic: `[H, W]` int32.
        inverse_depth: `[H, W]` float32, 1/metres, 0 at infinity.
    """

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.image = np.zeros((*camera.size, 3), np.uint8)
        self.panoptic = np.zeros(camera.size, np.int32)
        self.inverse_depth = np.zeros(camera.size, np.float32)

    def may_show(self, points: NDArray[np.float64]) -> bool:
        """Tells whether a body inside the hull of world points may be visible.

        False is certain: the body lies outside the picture or behind what has been
        painted. It costs a few microseconds, a texture costs a thousand.
        """
        clipped = self.camera.to_camera(points)
        nearest = float(clipped[:, 2].min())
        if nearest < NEAR:
            return float(clipped[:, 2].max()) > NEAR
        pixels = self.camera.project(clipped)
        rows, columns = self.camera.size
        (left, top), (right, bottom) = pixels.min(0).tolist(), pixels.max(0).tolist()
        x0, y0 = max(int(left), 0), max(int(top), 0)
        x1, y1 = min(int(right) + 2, columns), min(int(bottom) + 2, rows)
        if x0 >= x1 or y0 >= y1:
            return False
        return bool(self.inverse_depth[y0:y1, x0:x1].min() < 1 / nearest)

    def fill_polygon(
        self,
        points: NDArray[np.float64],
        color: Color,
        label: int,
        *,
        bottom_color: Color | None = None,
    ) -> None:
        """Paints a planar world polygon `[N, 3]`.

        `bottom_color` makes a vertical gradient from `color` at the top.
        """
        corners = self.camera.to_camera(points)
        found = self._mask(corners)
        if found is None:
            return
        y0, y1, x0, x1, mask, clipped = found
        normal = cross(corners[1] - corners[0], corners[2] - corners[0])
        offset = float(normal @ corners[0])
        if abs(offset) < 1e-9:
            return
        inverse = self._plane(normal / offset, y0, y1, x0, x1, clipped)
        buffer = self.inverse_depth[y0:y1, x0:x1]
        visible = (mask != 0) & (inverse > buffer * _DEPTH_SLACK)
        paint: Any = np.clip(np.asarray(color), 0, 255).astype(np.uint8)
        if bottom_color is not None:
            blend = np.linspace(0, 1, y1 - y0)[:, None, None]
            mixed = np.asarray(color) * (1 - blend) + np.asarray(bottom_color) * blend
            paint = np.clip(mixed, 0, 255).astype(np.uint8)
        np.copyto(self.image[y0:y1, x0:x1], paint, where=visible[..., None])
        np.copyto(self.panoptic[y0:y1, x0:x1], label, where=visible)
        np.copyto(buffer, inverse, where=visible)

    def draw_texture(
        self,
        origin: NDArray[np.float64],
        along_x: NDArray[np.float64],
        along_y: NDArray[np.float64],
        texture: NDArray[np.uint8],
        label: int,
        *,
        light: Color = (1.0, 1.0, 1.0),
        label_gaps: bool = False,
    ) -> None:
        """Paints a texture on the parallelogram `origin + a along_x + b along_y`.

        Args:
            origin: World position of the top left texture corner.
            along_x: World vector to the top right corner.
            along_y: World vector to the bottom left corner.
            texture: `[h, w, 3]`, or `[h, w, 4]` whose alpha below one half is a gap.
            label: Panoptic value.
            light: Factor per color channel.
            label_gaps: Gaps show what is behind but carry the label (a railing).
        """
        corners = self.camera.to_camera(
            np.stack(
                [origin, origin + along_x, origin + along_x + along_y, origin + along_y]
            )
        )
        found = self._mask(corners)
        if found is None:
            return
        y0, y1, x0, x1, mask, clipped = found
        basis = np.stack(
            [corners[1] - corners[0], corners[3] - corners[0], corners[0]], axis=1
        )
        if abs(np.linalg.det(basis)) < 1e-9:
            return
        inverse_basis = np.linalg.inv(basis)
        texture = self._shrink(texture, clipped)
        height, width = texture.shape[:2]
        cx, cy = self.camera.center_xy
        f = self.camera.focal
        # Rays of pixels of the region: the first pixel is (x0, y0).
        rays = np.array(
            [[1 / f, 0, (x0 - cx) / f], [0, 1 / f, (y0 - cy) / f], [0, 0, 1]]
        )
        scale = np.array([[width, 0, -0.5], [0, height, -0.5], [0, 0, 1.0]])
        warped = cv2.warpPerspective(
            texture,
            scale @ inverse_basis @ rays,
            (x1 - x0, y1 - y0),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        inverse = self._plane(inverse_basis[2], y0, y1, x0, x1, clipped)
        buffer = self.inverse_depth[y0:y1, x0:x1]
        visible = (mask != 0) & (inverse > buffer * _DEPTH_SLACK)
        opaque = visible
        if texture.shape[2] == 4:
            opaque = visible & (warped[..., 3] > 127)
            if not label_gaps:
                visible = opaque
        factor = (*(float(c) for c in light), 1.0)  # OpenCV 4.6 takes no fewer
        colors = cv2.multiply(warped, factor)[..., :3]
        np.copyto(self.image[y0:y1, x0:x1], colors, where=opaque[..., None])
        np.copyto(self.panoptic[y0:y1, x0:x1], label, where=visible)
        np.copyto(buffer, inverse, where=visible)

    def ground_mask(self, polygons: Sequence[NDArray[np.float64]]) -> NDArray[np.uint8]:
        """Returns `[H, W]` uint8, 255 where any of the world polygons projects to."""
        mask = np.zeros(self.camera.size, np.uint8)
        for polygon in polygons:
            clipped = clip_near(self.camera.to_camera(polygon))
            if len(clipped) >= 3:
                pixels = self.camera.project(clipped)
                cv2.fillPoly(mask, [_fixed(pixels)], 255, shift=_SUBPIXEL_BITS)
        return mask

    def _mask(self, corners: NDArray[np.float64]) -> Any:
        """Returns the region, its polygon mask and the clipped corners with pixels."""
        clipped = clip_near(corners)
        if len(clipped) < 3:
            return None
        pixels = self.camera.project(clipped)
        rows, columns = self.camera.size
        x0 = max(int(np.floor(pixels[:, 0].min())), 0)
        y0 = max(int(np.floor(pixels[:, 1].min())), 0)
        x1 = min(int(np.ceil(pixels[:, 0].max())) + 1, columns)
        y1 = min(int(np.ceil(pixels[:, 1].max())) + 1, rows)
        if x0 >= x1 or y0 >= y1:
            return None
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(
            mask, [_fixed(pixels - np.array([x0, y0]))], 1, shift=_SUBPIXEL_BITS
        )
        return y0, y1, x0, x1, mask, clipped

    def _plane(
        self,
        plane: NDArray[np.float64],
        y0: int,
        y1: int,
        x0: int,
        x1: int,
        clipped: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """Returns inverse depths of the plane `plane . P = 1` in a region."""
        cx, cy = self.camera.center_xy
        u = ((np.arange(x0, x1) - cx) / self.camera.focal).astype(np.float32)
        v = ((np.arange(y0, y1) - cy) / self.camera.focal).astype(np.float32)
        inverse = (
            np.float32(plane[0]) * u[None, :]
            + (np.float32(plane[1]) * v + np.float32(plane[2]))[:, None]
        )
        # A mask reaches half a pixel beyond the polygon; there a plane seen edge-on
        # would run away.
        low, high = 1 / float(clipped[:, 2].max()), 1 / float(clipped[:, 2].min())
        np.maximum(inverse, np.float32(low), out=inverse)
        np.minimum(inverse, np.float32(high), out=inverse)
        return np.asarray(inverse, np.float32)

    def _shrink(
        self, texture: NDArray[np.uint8], clipped: NDArray[np.float64]
    ) -> NDArray[np.uint8]:
        """Averages a texture down to about the size it is seen at."""
        pixels = self.camera.project(clipped)
        seen = np.ptp(pixels, axis=0) * 1.3 + 2
        height, width = texture.shape[:2]
        new_width = int(min(width, max(seen[0], 4)))
        new_height = int(min(height, max(seen[1], 4)))
        if (new_width, new_height) == (width, height):
            return texture
        return np.asarray(
            cv2.resize(texture, (new_width, new_height), interpolation=cv2.INTER_AREA)
        )


def _fixed(pixels: NDArray[np.float64]) -> NDArray[np.int32]:
    limited = np.clip(pixels, -_COORDINATE_LIMIT, _COORDINATE_LIMIT)
    return np.round(limited * (1 << _SUBPIXEL_BITS)).astype(np.int32)
