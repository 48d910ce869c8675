"""What the words of a user name: files, folders, cameras, streams or a pipe."""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.images import IMAGE_SUFFIXES, read_image
from deeplab2_edge.runtime.sources import capture, pi_camera, pipe
from deeplab2_edge.runtime.sources.source import (
    DEFAULT_FPS,
    Image,
    Source,
    SourceOptions,
)
from deeplab2_edge.runtime.timing import StageTimer

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")

_STREAM = re.compile(r"(rtsps?|https?)://", re.IGNORECASE)
_DEVICE = re.compile(r"/dev/video\d+")
_PI_CAMERA = re.compile(r"picamera(?::(\d))?")
_MAX_STEM = 80


def open_sources(
    inputs: Sequence[str], options: SourceOptions | None = None
) -> list[Source]:
    """Finds everything the inputs name and checks what can be checked beforehand.

    Args:
        inputs: Paths of images, videos and folders (their images, sorted by name; of
            a folder of folders each is a video);
            cameras such as `"0"`, `"/dev/video0"` or `"picamera"`; addresses of
            streams; `"-"` for the standard input.
        options: What is wanted of cameras and pipes.

    Raises:
        DataError: If an input is missing, a folder without images, of an unknown
            kind, or a video, camera or stream that cannot be opened.
        UsageError: If an option belongs to none of the inputs.
        MissingExtraError: If a Raspberry Pi camera is named without its library.
    """
    options = options or SourceOptions()
    _check_options(inputs, options)
    stems: dict[str, int] = {}

    def unique(stem: str) -> str:
        # a/x.jpg and b/x.png must not overwrite each other's results.
        stems[stem] = stems.get(stem, 0) + 1
        return f"{stem}_{stems[stem]}" if stems[stem] > 1 else stem

    sources: list[Source] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            for clip, images in _clips(path):
                prefix = f"{clip}_" if clip else ""
                word = str(path / clip)
                for image in images:
                    stem = unique(prefix + image.stem)
                    sources.append(_image(str(image), stem, clip=word))
        elif path.suffix.lower() in VIDEO_SUFFIXES and path.exists():
            info = capture.probe_video(text)
            sources.append(
                Source(
                    text,
                    "video",
                    unique(path.stem),
                    _of_file(capture.read_video, text),
                    info.num_frames,
                    info.fps,
                )
            )
        elif path.exists() and not _is_camera(text):
            # An unknown suffix may still be an image: its header decides.
            sources.append(_image(text, unique(path.stem)))
        else:
            sources.append(_live(text, unique, options))
    return sources


def folder_images(folder: Path) -> list[Path]:
    """Lists the images of a folder, or of its folder `images`, sorted by name.

    Numbers in names count by their value: `frame9` comes before `frame10`.

    Raises:
        DataError: If there are none.
    """
    for place in (folder, folder / "images"):
        if found := _images_in(place):
            return found
    raise DataError(
        f"{folder}: the folder has no images ({', '.join(IMAGE_SUFFIXES)}), nor has a "
        "folder images/ in it"
    )


def _clips(folder: Path) -> list[tuple[str, list[Path]]]:
    """Gives the images of a folder, or those of each folder in it by its name.

    Raises:
        DataError: If there are none.
    """
    for place in (folder, folder / "images"):
        if found := _images_in(place):
            return [("", found)]
        entries = place.iterdir() if place.is_dir() else ()
        # A data set keeps its images in images/ and its labels beside it.
        is_data_set = place == folder and (folder / "images").is_dir()
        inner = [] if is_data_set else sorted(entries, key=_numbers_by_value)
        if clips := [(i.name, images) for i in inner if (images := _images_in(i))]:
            return clips
    return [("", folder_images(folder))]


def _images_in(place: Path) -> list[Path]:
    entries = place.iterdir() if place.is_dir() else ()
    return sorted(
        (e for e in entries if e.suffix.lower() in IMAGE_SUFFIXES),
        key=_numbers_by_value,
    )


def hide_credentials(url: str) -> str:
    """Gives an address without user, password and query, for messages and files.

    Example:
        >>> hide_credentials("rtsp://me:secret@10.0.0.7:554/live?token=1")
        'rtsp://***@10.0.0.7:554/live'
    """
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    if ":" in authority and "@" not in authority and "@" in path:
        # A password with a slash, perhaps: where it ends is not known.
        return f"{scheme}://***"
    _, at, host = authority.rpartition("@")
    shown = re.split(r"[?#]", host + slash + path, maxsplit=1)[0]
    return f"{scheme}://{'***@' if at else ''}{shown}"


def _live(text: str, unique: Callable[[str], str], options: SourceOptions) -> Source:
    """Makes the source of what is no file."""
    size, fps = options.camera_size, options.fps
    if text == "-":
        read = functools.partial(pipe.read_pipe, options.raw_size, options.raw_format)
        return Source("stdin", "pipe", unique("stdin"), read, None, fps or DEFAULT_FPS)
    if match := _PI_CAMERA.fullmatch(text):
        number = int(match[1] or 0)
        pi_camera.require_picamera2()
        read = functools.partial(pi_camera.read_pi_camera, number, size, fps)
        rate = fps or pi_camera.FPS
        return Source(
            text, "camera", unique(f"picamera{number}"), read, None, rate, is_live=True
        )
    if _is_camera(text):
        info = capture.probe_camera(text, size, fps)
        stem = unique("camera" + text.removeprefix("/dev/video"))
        read = functools.partial(capture.read_camera, text, size, fps)
        return Source(text, "camera", stem, read, None, info.fps, is_live=True)
    if _STREAM.match(text):
        name = hide_credentials(text)
        info = capture.probe_stream(text, name)
        is_live = info.num_frames is None
        read = functools.partial(capture.read_stream, text, name, is_live=is_live)
        stem = re.sub(r"[^\w.-]+", "_", name.partition("://")[2])
        return Source(
            name,
            "stream",
            unique(stem[:_MAX_STEM].strip("_.") or "stream"),
            read,
            info.num_frames,
            info.fps,
            is_live=is_live,
        )
    raise DataError(
        f"{text}: no such file or folder; give images, folders, videos, a camera such "
        "as 0 or picamera, an rtsp:// or http:// address, or - for a pipe"
    )


def _is_camera(text: str) -> bool:
    is_number = text.isascii() and text.isdigit() and len(text) <= 3
    return (is_number and not Path(text).exists()) or bool(_DEVICE.fullmatch(text))


def _image(path: str, stem: str, *, clip: str = "") -> Source:
    return Source(path, "image", stem, _of_file(_only_image, path), clip=clip)


def _only_image(path: str) -> Iterator[Image]:
    yield read_image(path)


def _of_file(
    read: Callable[[str], Iterator[Image]], path: str
) -> Callable[[StageTimer], Iterator[Image]]:
    return lambda _: read(path)  # files let nobody wait


def _check_options(inputs: Sequence[str], options: SourceOptions) -> None:
    has_pipe = "-" in inputs
    has_camera = any(_is_camera(t) or _PI_CAMERA.fullmatch(t) for t in inputs)
    if inputs.count("-") > 1:
        raise UsageError("-: the standard input can be read only once")
    if options.camera_size is not None and not has_camera:
        raise UsageError("--camera-size is for cameras; none is given")
    if options.fps is not None and not (has_pipe or has_camera):
        raise UsageError("--fps is for cameras and for -; none is given")
    if options.fps is not None and not 0 < options.fps <= 1000:
        raise UsageError(f"--fps is {options.fps:g}; it must be above 0, at most 1000")
    if (options.raw_size is None) != (options.raw_format is None):
        raise UsageError(
            "--raw-size and --raw-format go together: one without the other says too "
            "little"
        )
    if options.raw_size is not None:
        if not has_pipe:
            raise UsageError("--raw-size and --raw-format are for -; it is not given")
        pipe.check_raw(options.raw_size, options.raw_format or "")


def _numbers_by_value(path: Path) -> list[str | int]:
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]
