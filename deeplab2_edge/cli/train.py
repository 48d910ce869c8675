"""`deeplab2-edge train`: trains an experiment."""

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.arguments import add_command, add_set_option
from deeplab2_edge.wording import counted

if TYPE_CHECKING:
    from deeplab2_edge.config import ExperimentOptions
    from deeplab2_edge.train.dry_run import DryRun
    from deeplab2_edge.train.modes import Evaluated
    from deeplab2_edge.train.run_options import RunOptions
    from deeplab2_edge.train.trainer import TrainingSummary

_EXAMPLES = """\
examples:
  deeplab2-edge train my_experiment.textproto --output runs
  deeplab2-edge train synthetic_street_mobilenet_v3_small --output runs \\
    --set '${TRAIN_SET}=data/synthetic/train-*.tfrecord' \\
    --set '${VAL_SET}=data/synthetic/val-*.tfrecord'
  deeplab2-edge train my_experiment.textproto --output runs \\
    --set train_dataset_options.batch_size=4 --steps 100
  deeplab2-edge train my_experiment.textproto --output runs --dry-run

The same command again resumes where the run stopped.
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "train",
        help="train an experiment, or resume it",
        description="Trains an experiment, from where an earlier run of it stopped.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "config",
        help="text-format experiment, or the name of a shipped recipe "
        "(listed by `deeplab2-edge recipes`)",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="checkpoints and summaries go to DIR/<experiment_name>",
    )
    add_set_option(
        parser, "change a field of the experiment, or fill a ${PLACEHOLDER}; repeatable"
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="stop at step N, before the end"
    )
    parser.add_argument(
        "--mode",
        choices=("train", "eval", "train_and_eval", "continuous_eval"),
        default="train",
        help="eval measures the latest checkpoint on eval_dataset_options; "
        "train_and_eval does so every evaluator_options.eval_interval steps, and "
        "continuous_eval, in a process of its own, whenever training writes one; all "
        "three keep the best under best/",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, take two steps, write nothing, and say what the run "
        "will need: time, memory, and whether the data keeps up",
    )
    _add_step_options(parser)
    _add_machine_options(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(run=run)


def _add_step_options(parser: argparse.ArgumentParser) -> None:
    """Adds what says how steps are computed."""
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="fixed summation order: a resumed run equals an uninterrupted one bit "
        "for bit; slower",
    )
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="keep only the inputs of residual blocks and compute the rest again for "
        "the gradient: less memory, a third more time, the same result",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
        default="float32",
        help="of activations; weights and statistics stay float32 (default: float32)",
    )
    parser.add_argument(
        "--micro-batches",
        type=int,
        default=1,
        metavar="N",
        help="learn from each batch in N parts, in one update: less memory",
    )
    parser.add_argument(
        "--xla",
        action="store_true",
        help="compile the step of one device with XLA: a long first step, then often "
        "faster ones, the same result to rounding",
    )
    parser.add_argument(
        "--no-eval-loss",
        action="store_true",
        help="evaluate metrics alone; the losses on the evaluation data cost one more "
        "forward pass for each image",
    )


def _add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Adds what says where they are."""
    parser.add_argument(
        "--strategy",
        choices=(
            "auto",
            "one",
            "mirrored",
            "multi_worker",
            "parameter_server",
            "tpu",
        ),
        default="auto",
        help="where to train: one device, all GPUs, the machines of TF_CONFIG in step "
        "or each at its own speed, a TPU (default: what is there)",
    )
    parser.add_argument("--tpu", default="", help="name or address of the TPU")
    parser.add_argument(
        "--worker-timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="how long to wait for other machines (default 600)",
    )
    parser.add_argument(
        "--data-service",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="let `deeplab2-edge data serve` of another machine make the samples; "
        "repeatable",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from deeplab2_edge.cli.experiments import load_experiment
    from deeplab2_edge.errors import UsageError
    from deeplab2_edge.train.run_checks import check_evaluation, check_training
    from deeplab2_edge.train.run_options import RunOptions

    evaluates_only = args.mode in ("eval", "continuous_eval")
    if args.dry_run and evaluates_only:
        raise UsageError(f"--dry-run tries out training; --mode {args.mode} has none")
    config = load_experiment(args.config, args.set)
    options = RunOptions(
        seed=args.seed,
        deterministic=args.deterministic,
        strategy=args.strategy,
        tpu=args.tpu,
        precision=args.precision,
        recompute=args.recompute,
        num_micro_batches=args.micro_batches,
        xla=args.xla,
        stop_after=args.steps,
        data_services=tuple(args.data_service),
        worker_timeout=args.worker_timeout,
    )
    # A wrong name is told before TensorFlow is loaded, which takes seconds.
    if not evaluates_only:
        check_training(config)
    if args.mode != "train":
        check_evaluation(config)
    if evaluates_only:
        return _evaluate(config, args)
    return _train(config, args, options)


def _train(
    config: "ExperimentOptions", args: argparse.Namespace, options: "RunOptions"
) -> int:
    from deeplab2_edge.train.modes import train_and_evaluate
    from deeplab2_edge.train.trainer import dry_run, train

    if args.dry_run:
        tried = dry_run(config, args.output, options)
        print(json.dumps(tried.to_json(), indent=1) if args.json else _format(tried))
        return 0
    evaluated: list[Evaluated] = []
    if args.mode == "train":
        summary = train(config, args.output, options, quiet=args.quiet)
    else:
        summary, evaluated = train_and_evaluate(
            config,
            args.output,
            options,
            quiet=args.quiet,
            with_losses=not args.no_eval_loss,
        )
    if args.json:
        document = _describe(summary)
        if evaluated:
            document["evaluation"] = evaluated[-1].report.to_json()
            document["evaluations"] = [_describe_evaluated(one) for one in evaluated]
        print(json.dumps(document, indent=1))
        return 0
    for one in evaluated:
        _print_evaluated(one)
    _print(summary)
    return 0


def _evaluate(config: "ExperimentOptions", args: argparse.Namespace) -> int:
    from deeplab2_edge.train.modes import evaluate_continuously, evaluate_latest

    with_losses = not args.no_eval_loss
    evaluations: Iterable[Evaluated]
    if args.mode == "continuous_eval":
        evaluations = evaluate_continuously(
            config, args.output, quiet=args.quiet, with_losses=with_losses
        )
    else:
        latest = evaluate_latest(
            config, args.output, quiet=args.quiet, with_losses=with_losses
        )
        evaluations = (latest,)
    for one in evaluations:
        if args.json:
            # One document per line: the last may be hours away.
            print(json.dumps(_describe_evaluated(one)), flush=True)
        else:
            _print_evaluated(one)
    return 0


def _describe_evaluated(one: "Evaluated") -> dict[str, Any]:
    return {
        "step": one.step,
        "checkpoint": one.checkpoint,
        "is_best": one.is_best,
        "losses": dict(one.losses),
        "evaluation": one.report.to_json(),
    }


def _print_evaluated(one: "Evaluated") -> None:
    best = " (the best so far)" if one.is_best else ""
    losses = ", ".join(f"{n} {v:.4f}" for n, v in sorted(one.losses.items()))
    print(f"step {one.step}{best}\n{one.report.format()}", flush=True)
    if losses:
        print(f"on the evaluation data: {losses}", flush=True)


def _describe(summary: "TrainingSummary") -> dict[str, Any]:
    return {
        "output_dir": str(summary.output_dir),
        "checkpoint": summary.checkpoint,
        "first_step": summary.first_step,
        "last_step": summary.last_step,
        "losses": summary.losses,
        "skipped_steps": summary.skipped_steps,
        "steps_per_second": summary.steps_per_second,
        "input_wait_fraction": summary.input_wait_fraction,
        "served_as": summary.served_as,
        "restored": None if summary.restored is None else asdict(summary.restored),
    }


def _format(tried: "DryRun") -> str:
    from deeplab2_edge.progress import format_seconds
    from deeplab2_edge.train.dry_run import describe_start

    steps = tried.last_step - tried.first_step
    limit = "the data" if tried.is_limited_by_data else "the network"
    images = counted(tried.batch_size, "image")
    peak = tried.peak_memory_bytes
    losses = ", ".join(f"{n} {v:.4f}" for n, v in sorted(tried.losses.items()))
    return "\n".join(
        [
            f"parameters: {tried.parameters:,}",
            describe_start(tried.restored, tried.first_step),
            f"losses: {losses}",
            f"first step, with tracing: {tried.first_step_seconds:.2f} s",
            f"second step: {tried.step_seconds:.3f} s for {images}, "
            f"{1 / tried.step_seconds:.2f} steps/s",
            f"data pipeline: {1 / tried.batch_seconds:.2f} batches/s without a step "
            f"beside it; {limit} will set the speed",
            f"whole run: {counted(steps, 'step')}, about "
            f"{format_seconds(tried.run_seconds)} without checkpoints and evaluation",
            f"memory for an image: {_mib(tried.memory_bytes_per_image)} (computed: "
            "most bytes of tensors alive at once in the traced step; weights and "
            "optimizer on top)",
            "peak memory of this process: "
            + ("unknown" if peak is None else f"{_mib(peak)} (tracing included)"),
            "nothing was written",
        ]
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _print(summary: "TrainingSummary") -> None:
    from deeplab2_edge.train.dry_run import describe_start

    if summary.served_as:
        print(
            f"served as {summary.served_as}: step {summary.last_step} was reached\n"
            f"checkpoint: {summary.checkpoint}"
        )
        return
    print(describe_start(summary.restored, summary.first_step))
    if summary.last_step == summary.first_step:
        print(f"nothing left to train: step {summary.last_step} was reached before")
    else:
        losses = ", ".join(f"{n} {v:.4f}" for n, v in sorted(summary.losses.items()))
        print(
            f"trained steps {summary.first_step + 1} to {summary.last_step} at "
            f"{summary.steps_per_second:.2f} steps/s, "
            f"{summary.input_wait_fraction:.1%} of the time waiting for data\n{losses}"
        )
    if summary.skipped_steps:
        steps = counted(summary.skipped_steps, "step")
        print(f"left out because the loss was not finite: {steps}")
    print(f"checkpoint: {summary.checkpoint}")
    print(f"curves: tensorboard --logdir {summary.output_dir}")
