"""Decoding of a mask transformer's masks in C++, called on NumPy arrays."""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import panoptic
from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import MaskMaps, MaskSettings
from deeplab2_edge.panoptic.mask_decoding import (
    MaskClasses,
    check_logits,
    classes_of_masks,
    confidence_of_best,
    panoptic_of_masks,
)
from deeplab2_edge.panoptic.resize import source_positions
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.native.library import head as describe_head
from deeplab2_edge.runtime.native.library import load_core

_CONFIDENT, _UNDECIDED = 1, 2
_NOT_FINITE = 3
# Decided at once, so that their logits stay small.
_PIXELS_PER_CHUNK = 4096


class _Settings(ctypes.Structure):
    _fields_ = (
        ("head_height", ctypes.c_int32),
        ("head_width", ctypes.c_int32),
        ("num_masks", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("num_threads", ctypes.c_int32),
        ("pixel_confidence_threshold", ctypes.c_float),
        ("is_detected", ctypes.c_void_p),
    )


class _Pixels(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in ("best", "winner", "confidence", "state", "area_px")
    )


class _Maps(ctypes.Structure):
    _fields_ = (
        ("panoptic_of_mask", ctypes.c_void_p),
        ("class_of_mask", ctypes.c_void_p),
        ("confidence_of_mask", ctypes.c_void_p),
        ("void_id", ctypes.c_int32),
        ("panoptic", ctypes.c_void_p),
        ("semantic", ctypes.c_void_p),
        ("mask_id", ctypes.c_void_p),
        ("mask_semantic", ctypes.c_void_p),
        ("semantic_scores", ctypes.c_void_p),
    )


def decode_masks(
    mask_logits: RawHead,
    class_logits: RawHead,
    *,
    canvas: tuple[int, int],
    settings: MaskSettings,
    num_threads: int = 1,
) -> MaskMaps:
    """Computes what `deeplab2_edge.panoptic.decode_masks` computes.

    All maps have the same bits but `instance_scores`: exponentials differ in their
    last bits between implementations of NumPy, and from them here, together by less
    than `(8 + N / 4) / 2**23` of the score. Pixels whose score is that close to the
    threshold are decided by NumPy.

    Logits are not stored at full size. By the maskwise rules, and where logits are not
    finite or beyond 1e20, NumPy decodes.

    Args:
        mask_logits: `[h, w, N]`.
        class_logits: `[N, K + 1]`.
        canvas: (H, W) of the network input.
        settings: How to decode.
        num_threads: At least 1.

    Raises:
        UsageError: As `panoptic.decode_masks`, or as `load_core`.
        MissingExtraError: As `load_core`.
        MemoryError: If there is not enough.
    """
    check_logits(mask_logits.values, class_logits.values, settings)
    maps = None
    if settings.maskwise is None:
        maps = _pixelwise(mask_logits, class_logits, canvas, settings, num_threads)
    if maps is not None:
        return maps
    return panoptic.decode_masks(
        mask_logits.real(), class_logits.real(), canvas=canvas, settings=settings
    )


def _pixelwise(
    mask_logits: RawHead,
    class_logits: RawHead,
    canvas: tuple[int, int],
    settings: MaskSettings,
    num_threads: int,
) -> MaskMaps | None:
    """Decodes pixel by pixel; gives None if a logit is not finite."""
    head = _readable(mask_logits)
    classes = classes_of_masks(class_logits.real(), settings)
    detected = classes.detected(settings)
    height, width, num_masks = head.values.shape
    is_detected = np.zeros(num_masks, np.uint8)
    is_detected[detected] = 1
    threshold = np.float32(settings.pixel_confidence_threshold)
    native_settings = _Settings(
        height,
        width,
        num_masks,
        *canvas,
        max(num_threads, 1),
        threshold,
        is_detected.ctypes.data,
    )
    found: dict[str, NDArray[Any]] = {
        "best": np.empty(canvas, np.int32),
        "winner": np.empty(canvas, np.int32),
        "confidence": np.empty(canvas, np.float32),
        "state": np.empty(canvas, np.uint8),
        "area_px": np.empty(num_masks, np.int64),
    }
    pixels = _Pixels(*(array.ctypes.data for array in found.values()))
    code = load_core().dle_mask_pixels(
        ctypes.byref(
            describe_head("mask_logits", head.values, head.scale, head.zero_point)
        ),
        ctypes.byref(native_settings),
        ctypes.byref(pixels),
    )
    if code == _NOT_FINITE:
        return None
    _check(code)
    _decide(head, detected, threshold, found)
    return _maps(native_settings, pixels, found, classes, settings)


def _maps(
    native_settings: _Settings,
    pixels: _Pixels,
    found: dict[str, NDArray[Any]],
    classes: MaskClasses,
    settings: MaskSettings,
) -> MaskMaps:
    """Makes maps of the masks of pixels."""
    is_any = bool(classes.detected(settings).size)
    size = found["winner"].shape
    tables = (
        panoptic_of_masks(found["area_px"], classes, settings),
        np.ascontiguousarray(classes.ids, np.int32),
        np.ascontiguousarray(classes.confidence, np.float32),
    )
    panoptic_map, semantic, mask_id, mask_semantic = (
        np.empty(size, np.int32) for _ in range(4)
    )
    semantic_scores = np.empty(size, np.float32)
    made = (panoptic_map, semantic, mask_id, mask_semantic, semantic_scores)
    code = load_core().dle_mask_maps(
        ctypes.byref(native_settings),
        ctypes.byref(pixels),
        ctypes.byref(
            _Maps(
                *(table.ctypes.data for table in tables),
                settings.ignore_label * settings.label_divisor,
                *(array.ctypes.data for array in made),
            )
        ),
    )
    _check(code)
    return MaskMaps(
        panoptic=panoptic_map,
        semantic=semantic,
        mask_id=mask_id,
        mask_semantic=mask_semantic if is_any else np.zeros_like(mask_semantic),
        instance_scores=found["confidence"],
        semantic_scores=semantic_scores if is_any else np.zeros_like(semantic_scores),
    )


def _readable(head: RawHead) -> RawHead:
    """Gives a head of a type and order that the library reads."""
    if head.values.dtype.name in ("int8", "uint8", "int16") and head.scale:
        return RawHead(np.ascontiguousarray(head.values), head.scale, head.zero_point)
    return RawHead(np.ascontiguousarray(head.real(), np.float32))


def _decide(
    head: RawHead,
    detected: NDArray[np.intp],
    threshold: np.float32,
    found: dict[str, NDArray[Any]],
) -> None:
    """Decides what the library could not: with NumPy's exponentials."""
    state, confidence = found["state"].reshape(-1), found["confidence"].reshape(-1)
    winner = found["winner"].reshape(-1)
    undecided = np.flatnonzero(state == _UNDECIDED)
    for start in range(0, len(undecided), _PIXELS_PER_CHUNK):
        pixels = undecided[start : start + _PIXELS_PER_CHUNK]
        logits = _logits_at(head, found["state"].shape, pixels)
        if detected.size < logits.shape[-1]:
            logits = np.take(logits, detected, axis=-1)
        confidence[pixels] = confidence_of_best(logits)
        is_confident = confidence[pixels] > threshold
        state[pixels] = is_confident
        found["area_px"] += np.bincount(
            winner[pixels[is_confident]], minlength=len(found["area_px"])
        )


def _logits_at(
    head: RawHead, canvas: tuple[int, ...], pixels: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Gives the logits `[M, N]` of `M` pixels of the canvas.

    The float32 steps are those of `panoptic.resize.resize_bilinear`.
    """
    rows, columns = np.divmod(pixels, canvas[1])
    top, bottom, y_weight = source_positions(head.values.shape[0], canvas[0])
    left, right, x_weight = source_positions(head.values.shape[1], canvas[1])

    def at(y: NDArray[np.intp], x: NDArray[np.intp]) -> NDArray[np.float32]:
        return RawHead(head.values[y, x], head.scale, head.zero_point).real()

    def lerp(
        a: NDArray[np.float32], b: NDArray[np.float32], weight: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        return (b - a) * weight[:, np.newaxis] + a

    on_left, on_right = (
        lerp(at(top[rows], x), at(bottom[rows], x), y_weight[rows])
        for x in (left[columns], right[columns])
    )
    return lerp(on_left, on_right, x_weight[columns])


def _check(code: int) -> None:
    if code == 2:
        raise MemoryError("native decoding of masks: out of memory")
    if code:
        raise UsageError(
            f"native decoding of masks: sizes make no sense (error {code})"
        )
