"""What air, lens and sensor do to a picture."""

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.synth.textures import Rng


def photograph(
    image: NDArray[np.uint8],
    inverse_depth: NDArray[np.float32],
    haze_color: NDArray[np.float32],
    rng: Rng,
    noise_rng: Rng,
) -> NDArray[np.uint8]:
    """Adds haze, color cast, exposure, vignette, blur, noise and JPEG marks.

    Args:
        image: `[H, W, 3]` uint8 RGB, as painted.
        inverse_depth: `[H, W]`, 1/metres, 0 on sky.
        haze_color: `[3]` RGB.
        rng: Settings of the camera, the same for all frames of a video.
        noise_rng: Sensor noise, new in every frame.

    Returns:
        `[H, W, 3]` uint8.
    """
    height, width = image.shape[:2]
    density = rng.choice([0.0015, 0.004, 0.01], p=[0.5, 0.35, 0.15])
    gain = rng.uniform(0.88, 1.28) * np.exp(rng.normal(0, 0.05, 3))
    contrast = rng.uniform(0.85, 1.15)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None] ** 2
    vignette = 1 - np.float32(rng.uniform(0, 0.16)) * (rows + columns)
    # The lens blurs before the sensor adds noise; a larger picture needs more.
    sigma = float(rng.uniform(0.35, 0.75)) * max(height / 257, 0.5) ** 0.5
    picture = cv2.GaussianBlur(image, (5, 5), sigma).astype(np.float32)
    clear = np.exp(-density / np.maximum(inverse_depth, 1e-3))
    clear[inverse_depth == 0] = 1
    picture -= haze_color
    picture *= clear[..., None]
    picture += haze_color
    picture *= (gain * contrast).astype(np.float32)
    picture += np.float32(118 * (1 - contrast))
    picture *= vignette[..., None]
    strength = float(rng.uniform(1, 5))
    grain = noise_rng.standard_normal((height, width), np.float32) * strength
    picture += grain[..., None]
    np.minimum(np.maximum(picture, 0, out=picture), 255, out=picture)
    result: NDArray[np.uint8] = picture.astype(np.uint8)
    if rng.random() < 0.5:
        quality = int(rng.integers(45, 92))
        _, data = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, quality])
        result = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return result
