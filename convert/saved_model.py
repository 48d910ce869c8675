"""SavedModels for servers: images in, all results out, standard TensorFlow ops only.

What a SavedModel says of an image is what evaluation of the checkpoint says. It is
loaded by TensorFlow alone:

    model = tf.saved_model.load("street_saved_model")
    maps = model.signatures["any_size"](image=image)
"""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeplab2_edge import families, keys
from deeplab2_edge.convert.merge.tail import OUTPUTS
from deeplab2_edge.convert.quiet import quiet_native_notes
from deeplab2_edge.errors import OutputError, UsageError
from deeplab2_edge.files import ensure_output_dir
from deeplab2_edge.model_file import METADATA_NAME
from deeplab2_edge.models.engine import KerasEngine
from deeplab2_edge.optional import require
from deeplab2_edge.panoptic import MotionSettings
from deeplab2_edge.postprocess import (
    MotionState,
    decode_masks,
    initial_motion_state,
    merge_heads,
    merge_two_frames,
    resize_bilinear,
    track_instances,
    upsample_argmax,
)
from deeplab2_edge.postprocess.placement import place_on_canvas, undo
from deeplab2_edge.saved_models import FILE_NAME

tf = require("tensorflow", extra="convert")

# One image of the size of the canvas; a frame and what is known of the past.
SERVING = "serving_default"
# One image of any size; maps of that size.
ANY_SIZE = "any_size"
# Motion-DeepLab: what to give with the first frame.
INITIAL_STATE = "initial_state"

METADATA_FOLDER = "assets.extra"
# Remembered tracks per instance that a frame can have.
_TRACKS_PER_INSTANCE = 4


@dataclass(frozen=True)
class SavedModelInfo:
    """Says what was written.

    Attributes:
        path: The folder.
        signatures: Inputs and outputs of each: shapes and types by name, None for a
            side of any length.
        size_bytes: Of all files.
    """

    path: Path
    signatures: Mapping[str, Mapping[str, Mapping[str, str]]]
    size_bytes: int


def export_saved_model(
    engine: KerasEngine,
    directory: str | os.PathLike[str],
    *,
    replace: bool = False,
    check: Callable[[Path], None] = lambda folder: None,
) -> SavedModelInfo:
    """Writes the SavedModel of a float network, merging or decoding inside.

    Every family has the signature `serving_default`. With one image as input it takes
    `image`, uint8 `[1, H, W, 3]` of the size of the canvas, and gives maps
    `[1, H, W]`, as `convert.tail` names them. Such families also have `any_size`, from
    `image`, uint8 `[h, w, 3]`, to maps `[h, w]` of that size.

    ViP-DeepLab takes `image` and `next_image` and gives the panoptic maps of both with
    common ids, classes and, if it has them, depths in meters.

    Motion-DeepLab takes `image` and its state: `previous_image`, `previous_heatmap`,
    `tracks` and `next_id`. It gives `panoptic_pred` with the ids of tracks and the
    state for the next frame. For the first frame `initial_state` gives the state, and
    the previous image is the image itself.

    Args:
        engine: The network with its weights.
        directory: The folder to write, all at once; its parent is made if missing.
        replace: Whether a SavedModel that is there may be replaced.
        check: Gets the finished folder before it has its name; what it raises keeps
            the folder from it.

    Raises:
        UsageError: If the settings of the experiment do not fit static shapes.
        OutputError: If the folder exists or cannot be written.

    Example:
        >>> engine = load_engine(config, "runs/street")  # doctest: +SKIP
        >>> export_saved_model(engine, "street_saved_model")  # doctest: +SKIP
    """
    target = Path(directory)
    check_target(target, replace=replace)
    module, signatures = _trace(engine)
    described = {name: s.describe() for name, s in signatures.items()}
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with quiet_native_notes():
            tf.saved_model.save(
                module,
                str(temporary),
                signatures={name: s.function for name, s in signatures.items()},
                options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
            )
        extra = temporary / METADATA_FOLDER
        extra.mkdir()
        document = json.loads(engine.metadata.to_json())
        document["signatures"] = described
        text = json.dumps(document, indent=1, sort_keys=True) + "\n"
        (extra / METADATA_NAME).write_text(text)
        check(temporary)
        _move(temporary, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
    except tf.errors.OpError as error:  # TensorFlow's own words for a full disk
        raise OutputError(f"{target}: cannot be written ({error.message})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return SavedModelInfo(
        path=target,
        signatures=described,
        size_bytes=sum(p.stat().st_size for p in target.rglob("*") if p.is_file()),
    )


@dataclass(frozen=True)
class _Signature:
    """Is a concrete function and the `tf.TensorSpec` of its inputs by name."""

    function: Any
    inputs: Mapping[str, Any]

    def describe(self) -> dict[str, dict[str, str]]:
        """Gives the tensors as text: `uint8 [1, 33, 65, 3]`."""

        def text(tensors: Mapping[str, Any]) -> dict[str, str]:
            return {
                name: f"{x.dtype.name} {x.shape.as_list()}"
                for name, x in sorted(tensors.items())
            }

        outputs = self.function.structured_outputs
        return {"inputs": text(self.inputs), "outputs": text(outputs)}


def _trace(engine: KerasEngine) -> tuple[Any, dict[str, _Signature]]:
    """Returns a module that owns all, and its signatures by name."""
    network, metadata = engine.network, engine.metadata
    if metadata.merge is not None and metadata.merge.keep_k_centers < 1:
        raise UsageError(
            "evaluator_options.keep_k_centers is "
            f"{metadata.merge.keep_k_centers}; a SavedModel has static shapes and "
            "needs a limit, for example 400"
        )
    make = {families.TWO_FRAMES: _two_frames, families.MOTION: _motion}
    parts = make.get(network.family, _one_image)(engine)
    module = tf.Module()
    # Tracks the variables alone, not the layers, which would be saved one by one.
    module.variables_of_model = list(network.model.weights)
    module.functions = {
        name: tf.function(function, autograph=False)
        for name, (function, _) in parts.items()
    }
    signatures = {
        name: _Signature(module.functions[name].get_concrete_function(**inputs), inputs)
        for name, (_, inputs) in parts.items()
    }
    return module, signatures


def _one_image(engine: KerasEngine) -> dict[str, tuple[Any, dict[str, Any]]]:
    metadata = engine.metadata

    def on_canvas(image: Any) -> dict[str, Any]:
        heads = engine.network({keys.IMAGE: image[tf.newaxis]})
        maps = _maps(engine, {name: head[0] for name, head in heads.items()})
        return {k: maps[name] for k, name in OUTPUTS[metadata.family].items()}

    def serve(image: Any) -> dict[str, Any]:
        return _with_batch(on_canvas(image[0]))

    def serve_any(image: Any) -> dict[str, Any]:
        placed, size = place_on_canvas(image, metadata.canvas, metadata.resize)
        return {
            name: undo(x, size, tf.shape(image)[:2])
            for name, x in on_canvas(placed).items()
            if tuple(x.shape) == metadata.canvas
        }

    return {
        SERVING: (serve, {keys.IMAGE: engine.network.inputs[keys.IMAGE]}),
        ANY_SIZE: (
            serve_any,
            {keys.IMAGE: tf.TensorSpec((None, None, 3), tf.uint8, keys.IMAGE)},
        ),
    }


def _maps(engine: KerasEngine, heads: Mapping[str, Any]) -> dict[str, Any]:
    """Makes what `postprocess` makes of the heads of one image, without batch."""
    metadata = engine.metadata
    if metadata.family == families.SEMANTIC:
        logits = heads[keys.SEMANTIC_LOGITS]
        return {"semantic": upsample_argmax(logits, metadata.canvas)}
    if metadata.family == families.MASKS:
        assert metadata.masks is not None
        return decode_masks(
            heads[keys.PIXEL_SPACE_MASK_LOGITS],
            heads[keys.TRANSFORMER_CLASS_LOGITS],
            canvas=metadata.canvas,
            settings=metadata.masks,
        )
    assert metadata.merge is not None
    return merge_heads(
        heads[keys.SEMANTIC_LOGITS],
        heads[keys.CENTER_HEATMAP][..., 0],
        heads[keys.OFFSET_MAP],
        canvas=metadata.canvas,
        settings=metadata.merge,
    )


def _motion(engine: KerasEngine) -> dict[str, tuple[Any, dict[str, Any]]]:
    metadata, network = engine.metadata, engine.network
    assert metadata.merge is not None
    max_instances = metadata.merge.keep_k_centers
    settings = MotionSettings(metadata.thing_ids, metadata.label_divisor)
    max_tracks = _TRACKS_PER_INSTANCE * max_instances

    def serve(tracks: Any, next_id: Any, **inputs: Any) -> dict[str, Any]:
        heads = {name: head[0] for name, head in network(inputs).items()}
        maps = _maps(engine, heads)
        state = MotionState(
            inputs[keys.PREVIOUS_HEATMAP][0, ..., 0], tracks[0], next_id[0]
        )
        panoptic, state = track_instances(
            maps["panoptic"],
            heads[keys.FRAME_OFFSET_MAP],
            state,
            settings=settings,
            max_instances=max_instances,
        )
        given = {k: maps[name] for k, name in OUTPUTS[families.MOTION].items()}
        given[keys.PANOPTIC_PRED] = panoptic
        return _with_batch(given) | _state(state)

    def begin() -> dict[str, Any]:
        return _state(initial_motion_state(metadata.canvas, max_tracks=max_tracks))

    inputs = {
        **network.inputs,
        "tracks": tf.TensorSpec((1, max_tracks, 5), tf.int32, "tracks"),
        "next_id": tf.TensorSpec((1,), tf.int32, "next_id"),
    }
    return {SERVING: (serve, inputs), INITIAL_STATE: (begin, {})}


def _state(state: MotionState) -> dict[str, Any]:
    """Names a state as the inputs of the next frame."""
    return {
        keys.PREVIOUS_HEATMAP: state.heatmap[tf.newaxis, ..., tf.newaxis],
        "tracks": state.tracks[tf.newaxis],
        "next_id": state.next_id[tf.newaxis],
    }


def _two_frames(engine: KerasEngine) -> dict[str, tuple[Any, dict[str, Any]]]:
    metadata, network = engine.metadata, engine.network
    merge = metadata.merge
    assert merge is not None
    carried = {
        name: spec
        for name, spec in network.inputs.items()
        if name.startswith(keys.PREVIOUS_FEATURES)
    }

    def serve(image: Any, next_image: Any) -> dict[str, Any]:
        nothing = {name: tf.zeros(spec.shape) for name, spec in carried.items()}
        first = network({keys.IMAGE: image, **nothing})
        known = {
            name: first[keys.FEATURES + name.removeprefix(keys.PREVIOUS_FEATURES)]
            for name in carried
        }
        second = network({keys.IMAGE: next_image, **known})
        current, following = (
            {name: head[0] for name, head in heads.items()} for heads in (first, second)
        )
        maps = merge_two_frames(
            _flat(current),
            following[keys.NEXT_OFFSET_MAP],
            _flat(following),
            canvas=metadata.canvas,
            settings=merge,
        )
        given = {
            keys.PANOPTIC_PRED: maps["panoptic"],
            keys.CONCAT_NEXT_PANOPTIC_PRED: maps["concat_next"],
            keys.NEXT_PANOPTIC_PRED: maps["next_panoptic"],
        }
        for prefix, heads in (("", current), ("next_", following)):
            logits = heads[keys.SEMANTIC_LOGITS]
            given[prefix + keys.SEMANTIC_PRED] = upsample_argmax(
                logits, metadata.canvas
            )
            if keys.DEPTH_PRED in heads:
                depth = resize_bilinear(heads[keys.DEPTH_PRED], metadata.canvas)
                given[prefix + keys.DEPTH_PRED] = depth[..., 0]
        return _with_batch(given)

    pixels = network.inputs[keys.IMAGE]
    inputs = {
        keys.IMAGE: pixels,
        keys.NEXT_IMAGE: tf.TensorSpec(pixels.shape, pixels.dtype, keys.NEXT_IMAGE),
    }
    return {SERVING: (serve, inputs)}


def _flat(heads: Mapping[str, Any]) -> dict[str, Any]:
    return {**heads, keys.CENTER_HEATMAP: heads[keys.CENTER_HEATMAP][..., 0]}


def _with_batch(maps: Mapping[str, Any]) -> dict[str, Any]:
    return {name: x[tf.newaxis] for name, x in maps.items()}


def check_target(target: Path, *, replace: bool = False) -> None:
    """Makes sure that a SavedModel can be written; its parent is made if missing.

    Raises:
        OutputError: If it exists and may not be replaced, or cannot be written.
    """
    ensure_output_dir(target.parent)
    if not target.exists():
        return
    if not (target / FILE_NAME).is_file():
        raise OutputError(
            f"{target}: exists and is no SavedModel; give the name of a new folder"
        )
    if not replace:
        raise OutputError(f"{target}: exists; give the name of a new folder")


def _move(temporary: Path, target: Path) -> None:
    """Puts a folder in place; one that is there goes only when the new one is ready."""
    if not target.exists():
        os.replace(temporary, target)
        return
    old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    os.replace(target, old)
    try:
        os.replace(temporary, target)
    except OSError:
        os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
