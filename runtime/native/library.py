"""The native library as ctypes sees it, and its threads."""

import ctypes
import functools
import os
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import MergeSettings
from deeplab2_edge.runtime.native.build import find_library, packaged_library

_ABI_VERSION = 3
_TYPES: Mapping[str, int] = {"float32": 0, "int8": 1, "uint8": 2, "int16": 3}
_MAX_THREADS = 256
_OUT_OF_MEMORY = 2


class Head(ctypes.Structure):
    """Is `DleHead`."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("zero_point", ctypes.c_int32),
    )


class Settings(ctypes.Structure):
    """Is `DleMergeSettings`."""

    _fields_ = (
        ("head_height", ctypes.c_int32),
        ("head_width", ctypes.c_int32),
        ("num_classes", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("label_divisor", ctypes.c_int32),
        ("ignore_label", ctypes.c_int32),
        ("nms_kernel", ctypes.c_int32),
        ("keep_k_centers", ctypes.c_int32),
        ("stuff_area_limit", ctypes.c_int32),
        ("merge_plateaus", ctypes.c_int32),
        ("center_score_threshold", ctypes.c_float),
        ("num_things", ctypes.c_int32),
        ("thing_ids", ctypes.POINTER(ctypes.c_int32)),
        ("votes_from", ctypes.c_int32),
    )


@functools.lru_cache(maxsize=4)
def load_core(library: Path | None = None) -> ctypes.CDLL:
    """Loads the native library.

    Args:
        library: Its path; by default that of `find_library`.

    Raises:
        UsageError: If it is not ours, or of another version.
        MissingExtraError, OutputError: As `find_library`.
    """
    path = library or find_library()
    try:
        core = _open(path)
    except UsageError:
        # A wheel of a newer system: here it may still be built.
        if library is not None or path != packaged_library():
            raise
        core = _open(find_library(packaged=False))
    core.dle_create.restype = ctypes.c_void_p
    core.dle_destroy.argtypes = (ctypes.c_void_p,)
    core.dle_destroy.restype = None
    return core


def _open(path: Path) -> ctypes.CDLL:
    try:
        core = ctypes.CDLL(str(path))
        version = core.dle_abi_version()
    except (OSError, AttributeError) as error:
        raise UsageError(f"{path}: not the native library ({error})") from None
    if version != _ABI_VERSION:
        raise UsageError(
            f"{path}: of version {version}, expected {_ABI_VERSION}; build it again"
        )
    return core


class Threads(threading.local):
    """Keeps what one thread needs to call the core: its helpers and their memory.

    A forked child begins anew, as threads do not survive a fork.
    """

    def __init__(self) -> None:
        self._of_count: dict[tuple[int, int], _Handle] = {}

    def handle(self, num_threads: int) -> ctypes.c_void_p:
        """Gives the `DleCore` of so many threads.

        Raises:
            UsageError: If there cannot be so many, or as `load_core`.
            MemoryError: If there is not enough.
        """
        if not 1 <= num_threads <= _MAX_THREADS:
            raise UsageError(
                f"num_threads is {num_threads}; it must be 1 to {_MAX_THREADS}"
            )
        key = os.getpid(), num_threads
        if key not in self._of_count:
            self._of_count[key] = _Handle(num_threads)
        return self._of_count[key].pointer


class _Handle:
    def __init__(self, num_threads: int) -> None:
        core = load_core()
        address = core.dle_create(ctypes.c_int32(num_threads))
        if not address:
            raise MemoryError("native core: out of memory")
        self.pointer = ctypes.c_void_p(address)
        weakref.finalize(self, core.dle_destroy, address)


THREADS = Threads()


def head(name: str, array: NDArray[Any], scale: float, zero_point: int) -> Head:
    """Describes a head in C order; the caller keeps it alive.

    Raises:
        UsageError: If the core does not take its type.
    """
    if array.dtype.name not in _TYPES:
        raise UsageError(f"{name} is {array.dtype}; expected {', '.join(_TYPES)}")
    return Head(array.ctypes.data, _TYPES[array.dtype.name], scale, zero_point)


@functools.lru_cache(maxsize=16)
def settings_of(
    settings: MergeSettings,
    head_shape: tuple[int, ...],
    canvas: tuple[int, int],
    votes_from: int = 0,
) -> Settings:
    """Gives the settings of heads of a shape `(h, w, C)`."""
    things = (ctypes.c_int32 * len(settings.thing_ids))(*settings.thing_ids)
    return Settings(
        head_height=head_shape[0],
        head_width=head_shape[1],
        num_classes=head_shape[2],
        height=canvas[0],
        width=canvas[1],
        label_divisor=settings.label_divisor,
        ignore_label=settings.ignore_label,
        nms_kernel=settings.nms_kernel,
        keep_k_centers=settings.keep_k_centers,
        stuff_area_limit=settings.stuff_area_limit,
        merge_plateaus=settings.merge_plateaus,
        center_score_threshold=settings.center_score_threshold,
        num_things=len(settings.thing_ids),
        thing_ids=things,
        votes_from=votes_from,
    )


def check(code: int) -> None:
    """Raises what a code of the core means.

    Raises:
        UsageError: If sizes or settings make no sense.
        MemoryError: If there is not enough.
    """
    if code == _OUT_OF_MEMORY:
        raise MemoryError("native core: out of memory")
    if code:
        raise UsageError("native core: sizes or settings make no sense")
