"""`deeplab2-edge recipes`: the shipped experiments, to train or to copy."""

import argparse
import json
import re
import shlex
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.arguments import (
    add_command,
    add_set_option,
    check_size,
    parse_size,
)

if TYPE_CHECKING:
    from deeplab2_edge.config import ExperimentOptions

_PLACEHOLDERS = ("${INIT_CHECKPOINT}", "${TRAIN_SET}", "${VAL_SET}")
# In the header of a recipe.
_TRAIN_COMMAND = re.compile(
    r"^#   deeplab2-edge train .*(?:\n#     --set .*)*", re.MULTILINE
)
_EXAMPLES = """\
examples:
  deeplab2-edge recipes
  deeplab2-edge recipes cityscapes_deeplabv3plus_mobilenet_v3_small_os16_res513x1025
  deeplab2-edge recipes coco_panoptic_resnet50_os32 --output my_street.textproto \\
    --dataset my/dataset.json --crop-size 513x1025 \\
    --set train_dataset_options.batch_size=8

A name alone prints the recipe. A copy keeps its comments.
"""


@dataclass(frozen=True)
class Recipe:
    """Is a shipped experiment.

    Attributes:
        name: What `deeplab2-edge train` takes.
        text: The whole file.
        title: Its first sentence.
        published_as: The experiment it repeats, or "" if it is ours.
        accuracy: The published or measured figures with their circumstances.
        config: What the text says.
    """

    name: str
    text: str
    title: str
    published_as: str
    accuracy: str
    config: "ExperimentOptions"


def load_recipe(name: str) -> Recipe:
    """Reads a shipped recipe.

    Raises:
        ConfigError: If there is none of that name; the nearest names are told.
    """
    from deeplab2_edge.config import parse_config
    from deeplab2_edge.config.textformat import nearest, read_text
    from deeplab2_edge.errors import ConfigError
    from deeplab2_edge.experiments import find_recipe, recipe_names

    if name not in recipe_names():
        hint = nearest(name, recipe_names()) or ";"
        raise ConfigError(
            f"{name}: no such recipe{hint} `deeplab2-edge recipes` lists all"
        )
    path = find_recipe(name)
    text = read_text(path)
    header = text.partition("\n\n")[0]
    paragraphs = re.split(r"^#$\n", header, flags=re.MULTILINE)
    published = _header_value(header, "Published as")
    return Recipe(
        name=name,
        text=text,
        title=re.sub(r"\s*^# ", " ", paragraphs[1], flags=re.MULTILINE).strip(),
        published_as="" if published.startswith("nothing;") else published,
        accuracy=_header_value(header, "Accuracy").removesuffix("."),
        config=parse_config(text, source=str(path)),
    )


def _header_value(header: str, key: str) -> str:
    match = re.search(rf"^# {key}: (.*)$", header, re.MULTILINE)
    assert match is not None, "a test looks for this line in every recipe"
    return match[1]


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "recipes",
        help="list the shipped experiments, or copy one for your data",
        description="Lists the shipped experiments with the accuracy published for "
        "them, prints one, or copies one for a data set of yours.",
        examples=_EXAMPLES,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of a recipe")
    parser.add_argument("--output", metavar="FILE", help="copy the recipe there")
    parser.add_argument(
        "--dataset",
        metavar="NAME|JSON",
        help="change the copy to this data set: its name, its number of classes",
    )
    parser.add_argument(
        "--crop-size",
        type=parse_size,
        metavar="HxW",
        help="change the copy to this canvas, for training and evaluation",
    )
    add_set_option(parser, "change a field of the copy; repeatable")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from deeplab2_edge.errors import UsageError
    from deeplab2_edge.experiments import recipe_names

    changes = [name for name in ("dataset", "crop_size", "set") if getattr(args, name)]
    if changes and not args.output:
        raise UsageError(
            f"--{changes[0].replace('_', '-')} changes a copy; say with --output where"
        )
    if args.name is None:
        if args.output:
            raise UsageError("--output copies one recipe; name it")
        _list([load_recipe(name) for name in recipe_names()], args.json)
        return 0
    recipe = load_recipe(args.name)
    if args.output:
        _copy(recipe, args)
    elif args.json:
        print(json.dumps({**_describe(recipe), "text": recipe.text}, indent=1))
    else:
        print(recipe.text, end="")
    return 0


# List ----------------------------------------------------------------------------


def _describe(recipe: Recipe) -> dict[str, Any]:
    model, data = recipe.config.model_options, recipe.config.train_dataset_options
    return {
        "name": recipe.name,
        "title": recipe.title,
        "meta_architecture": model.meta_architecture,
        "backbone": model.backbone.name,
        "output_stride": model.backbone.output_stride,
        "dataset": data.dataset,
        "crop_size": list(data.crop_size),
        "published_as": recipe.published_as or None,
        "accuracy": recipe.accuracy,
    }


def _list(recipes: list[Recipe], is_json: bool) -> None:
    rows = [_describe(recipe) for recipe in recipes]
    if is_json:
        print(json.dumps({"recipes": rows}, indent=1))
        return
    rows.sort(key=lambda row: (row["dataset"], row["name"]))
    width = max(len(row["name"]) for row in rows)
    for dataset, group in groupby(rows, key=lambda row: str(row["dataset"])):
        print(dataset)
        for row in group:
            backbone = f"{row['backbone']} os{row['output_stride']}"
            mark = "" if row["published_as"] else "  (ours)"
            print(
                f"  {row['name']:<{width}}  {row['meta_architecture']:<16}  "
                f"{backbone:<27}  {row['accuracy'].partition(' (')[0]}{mark}"
            )
    print(
        "\nAccuracy: on val or held-out scenes; as published, except for (ours). "
        "`deeplab2-edge recipes NAME` prints one."
    )


# Copy ----------------------------------------------------------------------------


def _copy(recipe: Recipe, args: argparse.Namespace) -> None:
    from deeplab2_edge.config import (
        ExperimentOptions,
        apply_overrides,
        parse_config,
        parse_override,
        validate_config,
    )
    from deeplab2_edge.config.edit import edit_text
    from deeplab2_edge.datasets.registry import get_dataset
    from deeplab2_edge.errors import OutputError
    from deeplab2_edge.files import atomic_write

    output = Path(args.output)
    if output.exists():
        raise OutputError(f"{output} is there already; expected a new file")
    config = recipe.config
    changes: dict[str, Any] = {"experiment_name": output.stem}
    if args.dataset:
        changes |= _dataset_changes(config, args.dataset)
    if args.crop_size:
        changes |= _crop_changes(config, args.crop_size)
    changes |= dict(parse_override(ExperimentOptions, text) for text in args.set)
    if args.crop_size:
        stride = apply_overrides(config, changes).model_options.backbone.output_stride
        check_size(args.crop_size, stride, "--crop-size")
    text = edit_text(recipe.text, changes, source=recipe.name)
    body = text.partition("\n\n")[2]
    left = [name for name in _PLACEHOLDERS if name in body]
    command = _train_command(recipe.text, left, args)
    text = _with_own_header(text, recipe.name, command)
    copy = parse_config(text, source=str(output))
    validate_config(copy, get_dataset(copy.train_dataset_options.dataset))
    with atomic_write(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    if args.json:
        print(json.dumps({"output": str(output), "copied": recipe.name}, indent=1))
        return
    print(f"copied {recipe.name} to {output}")
    if left:
        print(f"left to fill in, there or with --set: {', '.join(left)}")
    if _TRAIN_COMMAND.search(recipe.text):  # some are no more than a network
        print("train it:\n  " + " \\\n    ".join(command))


def _train_command(
    text: str, placeholders: list[str], args: argparse.Namespace
) -> list[str]:
    """Returns, in lines, what trains the copy.

    Args:
        text: The recipe, whose header has values to fill in.
        placeholders: Those that the copy still has.
        args: Of the command.
    """
    values = dict(re.findall(r"^#     --set '(\$\{\w+\})=(.*)'", text, re.MULTILINE))
    if args.dataset:  # its records lie in another folder
        for name, split in (("${TRAIN_SET}", "train"), ("${VAL_SET}", "val")):
            values[name] = f"records/{Path(args.dataset).stem}/{split}-*.tfrecord"
    words = [shlex.quote(args.output)]
    words += [f"--import {shlex.quote(path)}" for path in args.imports]
    lines = [f"deeplab2-edge train {' '.join(words)} --output runs"]
    for name in placeholders:
        assignment = f"{name}={values.get(name, '')}"
        lines.append(f"--set {shlex.quote(assignment)}")
    return lines


def _with_own_header(text: str, name: str, command: list[str]) -> str:
    """Returns the copy with the command that trains it, in lines, and its origin."""
    header, _, body = text.partition("\n\n")
    lines = "#   " + " \\\n#     ".join(command)
    header = _TRAIN_COMMAND.sub(lambda _: lines, header)
    copied = f"# Copied from the recipe {name}, which is described by what follows."
    header = header.replace("# Published as: ", f"{copied}\n# Published as: ")
    return f"{header}\n\n{body}"


def _dataset_changes(config: "ExperimentOptions", name: str) -> dict[str, Any]:
    from deeplab2_edge.datasets.registry import get_dataset

    model, info = config.model_options, get_dataset(name)
    before = get_dataset(config.train_dataset_options.dataset)
    field = f"model_options.{model.meta_architecture}"
    field += {
        "deeplab_v3": ".num_classes",
        "deeplab_v3_plus": ".num_classes",
        "max_deeplab": ".auxiliary_semantic_head.output_channels",
    }.get(str(model.meta_architecture), ".semantic_head.output_channels")
    changes: dict[str, Any] = {field: info.num_classes}
    for section in ("train_dataset_options", "eval_dataset_options"):
        if config.has(section):
            changes[f"{section}.dataset"] = name
    if model.has("initial_checkpoint") and info.class_names != before.class_names:
        # The last layer of a checkpoint of the recipe's data set knows other classes.
        changes["model_options.restore_semantic_last_layer_from_initial_checkpoint"] = (
            False
        )
    return changes


def _crop_changes(config: "ExperimentOptions", size: tuple[int, int]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for section in ("train_dataset_options", "eval_dataset_options"):
        if not config.has(section):
            continue
        changes[f"{section}.crop_size"] = size
        for field in ("min_resize_value", "max_resize_value"):
            # Where images were resized to the old canvas they are to the new one.
            if any(value > 0 for value in getattr(getattr(config, section), field)):
                changes[f"{section}.{field}"] = size
    return changes
