"""The command `train`: each subcommand parses its options and calls one function."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import labelgen
from labelgen.errors import LabelgenError
from labelgen.options import grouped
from train import NonFiniteError, StoppedError, TrainError
from train.evaluate.protocols import AVERAGES, PROTOCOLS, Protocol
from train.recipe import (
    BACKBONES,
    FINETUNE_RECIPES,
    INITS,
    LOSSES,
    PIXELS,
    RECIPES,
    SCHEDULES,
    SCRATCH,
    STILL,
    TARGETS,
    AnyRecipe,
    overridden,
)
from train.state import (
    EXIT_DONE,
    EXIT_ERROR,
    EXIT_MISTAKE,
    EXIT_STOPPED,
    exit_code,
    recorded,
)

if TYPE_CHECKING:
    from train.device import Machine
    from train.evaluate.result import Trial
    from train.job import Job

labels_option = click.option(
    "--labels", required=True, help="Folder of sealed shards, or folder/prefix for one split of it."
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "bf16", "fp32"]),
    default="auto",
    show_default=True,
    help="bf16 autocast, on GPUs; auto: where they have bf16 matrix units.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Loader processes per rank; 0 loads in this process. "
    "[default: 0 on a CPU, else the rank's share of the cores]",
)
compile_option = click.option("--compile", "compiled", is_flag=True, help="Use torch.compile.")


class _Options:
    """Options that override fields of named recipes; their helps end with the defaults."""

    def __init__(self, recipes: Mapping[str, AnyRecipe]) -> None:
        self._recipes = recipes

    def recipe(self, default: str, text: str) -> Callable[[Any], Any]:
        """Return the option that names a recipe."""
        return click.option(
            "--recipe", "recipe_name", type=click.Choice(list(self._recipes)), default=default,
            show_default=True, help=f"{text} Other options override parts of it.",
        )  # fmt: skip

    def of(self, flag: str, text: str = "", **kind: Any) -> Callable[[Any], Any]:
        """Return an option for the field that a flag is named after."""
        field = flag.split("/")[0].removeprefix("--").replace("-", "_")
        values = {name: _shown(getattr(r, field)) for name, r in self._recipes.items()}
        if len(set(values.values())) == 1:
            defaults = next(iter(values.values()))
        else:
            defaults = "; ".join(f"{name}: {value}" for name, value in values.items())
        kind = {"default": None, **kind}
        return click.option(flag, help=f"{text} [{defaults}]".strip(), **kind)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(value) if isinstance(value, tuple) else str(value).removesuffix(".0")


_PRETRAIN, _FINETUNE = _Options(RECIPES), _Options(FINETUNE_RECIPES)
loss_option = _PRETRAIN.of(
    "--loss",
    "What is learnt: the labels as numbers (mse), how likely each value is (ce), with neighbours "
    "sharing (ce-soft), or the spread of motion and colours over blocks that labels sum up "
    "(statistics; needs stored motion boundaries).",
    type=click.Choice(LOSSES),
)
pretrain_recipe_option = _PRETRAIN.recipe(
    "ucf101", "The paper's schedules, and one for small sets."
)


def _network_options(of: _Options) -> Callable[[Any], Any]:
    return grouped(
        of.of("--backbone", "Network.", type=click.Choice(BACKBONES)),
        of.of("--batch-norm/--no-batch-norm", "Batch norm after each convolution of c3d."),
        of.of("--width", "Share of the paper's filters and hidden units.", type=float),
        of.of("--pixels", "Pixel scaling.", type=click.Choice(list(PIXELS))),
    )


def _schedule_options(of: _Options) -> Callable[[Any], Any]:
    return grouped(
        of.of("--batch", "Samples per step, over all ranks.", type=int),
        of.of("--views", "Samples cut from each clip that is read.", type=int),
        of.of("--epochs", "Passes over the clips.", type=int),
        of.of("--lr", "Learning rate; of one-cycle, the highest.", type=float),
        of.of(
            "--schedule",
            "Of the rate: divided by 10 every few epochs, or one rise and fall over all steps.",
            type=click.Choice(SCHEDULES),
        ),
        of.of("--lr-every", "Of step: epochs between divisions of the rate by 10.", type=int),
        of.of("--weight-decay", "On the weights that decay.", type=float),
        of.of("--clip-grad", "Largest norm of a step's gradient; 0 takes any.", type=float),
    )


def _run_options(out: str) -> Callable[[Any], Any]:
    """Declare what a run is told beside its recipe."""
    return grouped(
        click.option(
            "--val",
            default="0.05",
            show_default=True,
            help="Held-out shards, or the fraction of videos to hold out; 0 for none.",
        ),
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            default=out,
            show_default=True,
            help="Folder of the run; one that holds an unfinished run of the same settings is "
            "resumed.",
        ),
        click.option(
            "--group-by",
            help="Regular expression of what videos of one group share in their paths; groups are "
            "held out whole. [UCF101's recordings; other videos singly]",
        ),
        click.option(
            "--drop-still",
            type=float,
            is_flag=False,
            flag_value=STILL,
            help="Leave out clips of less motion energy than this. "
            f"[keep all; {STILL} without a value]",
        ),
        device_option,
        precision_option,
        workers_option,
        click.option(
            "--accumulate",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Compute each batch in this many parts.",
        ),
        compile_option,
        click.option(
            "--skip-bad", is_flag=True, help="Leave out clips that cannot be read, not end."
        ),
        click.option(
            "--save-every",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Steps between checkpoints inside an epoch; 0: at its end only.",
        ),
        click.option("--tensorboard", is_flag=True, help="Also write TensorBoard events."),
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(labelgen.__version__, prog_name="train")
def cli() -> None:
    """Pre-train a network on motion and appearance labels, and measure what it is worth.

    Exit codes: 0 done, 2 a mistake told in one sentence, 3 the loss was no longer finite, 75
    stopped by a signal with all saved: run the same command again to go on.
    """


@cli.command()
@labels_option
@_run_options("runs/pretrain")
@pretrain_recipe_option
@_schedule_options(_PRETRAIN)
@loss_option
@_PRETRAIN.of("--tasks", "Label name prefixes, by comma: motion, motion/grid, ...")
@_PRETRAIN.of("--motion-weight", "Of the branch in the loss.", type=float)
@_PRETRAIN.of("--appearance-weight", "Of the branch in the loss.", type=float)
@_network_options(_PRETRAIN)
@_PRETRAIN.of("--init", "Of the weights.", type=click.Choice(INITS))
@_PRETRAIN.of(
    "--targets",
    "Of mse: the 1-based labels, or labels of zero mean and unit variance.",
    type=click.Choice(TARGETS),
)
@_PRETRAIN.of("--seed", type=int)
def pretrain(
    labels: str, val: str, out: Path, group_by: str | None, recipe_name: str, **options: Any
) -> None:
    """Train a network on label shards, or go on with it."""
    from train.job import PretrainJob

    with recorded(out):
        machine, run, overrides = _divided(options)
        recipe = _recipe(RECIPES[recipe_name], overrides)
        _learn(PretrainJob(labels, val, recipe, group_by), out, machine=machine, **run)


@cli.command()
@labels_option
@_run_options("runs/finetune")
@click.option(
    "--init",
    "source",
    default=SCRATCH,
    show_default=True,
    help="Where the backbone begins: a run, a checkpoint, an exported file, or scratch.",
)
@_FINETUNE.recipe("paper", "The paper's schedule, C3D's own for UCF101, and one for small sets.")
@_schedule_options(_FINETUNE)
@_FINETUNE.of("--dropout", "Share of hidden units left out in training.", type=float)
@_FINETUNE.of("--freeze/--no-freeze", "Learn a linear layer on pool5 alone: a linear probe.")
@_network_options(_FINETUNE)
@_FINETUNE.of("--seed", "Of new layers, samples and dropout.", type=int)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    help="Repeat with so many seeds, from --seed on, in OUT/seed-0, OUT/seed-1, ...",
)
def finetune(
    labels: str,
    val: str,
    out: Path,
    group_by: str | None,
    source: str,
    recipe_name: str,
    seeds: int | None,
    **options: Any,
) -> None:
    """Train a network to tell the classes of videos, from pre-trained weights or from scratch.

    Shards made with --no-labels are enough. The network is that of the weights it begins from.
    """
    from train.job import FinetuneJob, like_source

    machine, run, overrides = _divided(options)
    recipe = _recipe(FINETUNE_RECIPES[recipe_name], overrides)
    for seed in range(recipe.seed, recipe.seed + (seeds or 1)):
        folder = out / f"seed-{seed}" if seeds else out
        with recorded(folder):
            seeded = like_source(replace(recipe, seed=seed), source, given=overrides)
            job = FinetuneJob(labels, val, seeded, source, group_by)
            _learn(job, folder, machine=machine, **run)


def _learn(job: Job, out: Path, *, machine: dict[str, Any], **run: Any) -> None:
    from train import loop

    loop.learn(job, out, machine=_machine(**machine), **run)


def _divided(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Divide options into those of the machine, those of the run, and those of the recipe."""
    machine = ("device", "precision", "workers", "accumulate", "compiled", "skip_bad")
    run = ("save_every", "tensorboard")
    return (
        {name: options[name] for name in machine},
        {name: options[name] for name in run},
        {name: value for name, value in options.items() if name not in {*machine, *run}},
    )


def _machine(device: str, workers: int | None, **settings: Any) -> Machine:
    """Fill in the number of workers that suits the device where none was given."""
    from train.device import Machine, default_workers

    workers = default_workers(device) if workers is None else workers
    return Machine(device=device, workers=workers, **settings)


def _recipe(named: AnyRecipe, overrides: dict[str, Any]) -> AnyRecipe:
    """Override a named recipe with the options that were given."""
    given = {key: value for key, value in overrides.items() if value is not None}
    if "tasks" in given:
        given["tasks"] = tuple(part.strip() for part in given["tasks"].split(","))
    return overridden(named, given)


runs_argument = click.argument("runs", metavar="RUN...", nargs=-1, required=True)
source_argument = click.argument("run")


def _evaluation_options(out: str) -> Callable[[Any], Any]:
    """Declare what every evaluation is told."""
    return grouped(
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            default=out,
            show_default=True,
            help="Folder for the result and features; features that are there are used.",
        ),
        click.option(
            "--protocol",
            "protocol_name",
            type=click.Choice(list(PROTOCOLS)),
            default="ours",
            show_default=True,
            help="Whose way of evaluating: docs/evaluation.md tells them apart.",
        ),
        click.option(
            "--clips",
            help="Clips per video: a number of them, or all. [as the protocol has it]",
        ),
        click.option(
            "--seeds",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Networks of random weights to stand beside.",
        ),
        click.option(
            "--scratch",
            multiple=True,
            help="A run that was trained alike without pre-training, to stand beside; repeatable.",
        ),
        device_option,
        precision_option,
        workers_option,
    )


def _layer_option(default: str) -> Callable[[Any], Any]:
    return click.option(
        "--layer",
        default=default,
        show_default=True,
        help="Where features are taken: conv5, pool5, fc6 or fc7.",
    )


def _trial(runs: tuple[str, ...], out: Path, options: dict[str, Any], **changes: Any) -> Trial:
    """Take the options that every evaluation has out of all."""
    from train.evaluate.result import Trial

    name, clips = options.pop("protocol_name"), options.pop("clips")
    protocol = _protocol(name, clips=clips, **changes)
    machine = {name: options.pop(name) for name in ("device", "workers", "precision")}
    return Trial(
        runs, out, protocol, _machine(**machine), seeds=options.pop("seeds"),
        scratch=options.pop("scratch"),
    )  # fmt: skip


def _protocol(name: str, *, clips: str | None, **changes: Any) -> Protocol:
    if clips is not None:
        if clips != "all" and not (clips.isdecimal() and int(clips)):
            raise TrainError(f"--clips takes a number from 1 on, or all, not {clips!r}.")
        changes["clips"] = 0 if clips == "all" else int(clips)
    given = {key: value for key, value in changes.items() if value is not None}
    return replace(PROTOCOLS[name], **given)


def _tell(result: dict[str, Any], out: Path) -> None:
    from train.evaluate.result import RESULT_FILE, table

    print(table(result))
    print(f"{out / RESULT_FILE} holds the result", file=sys.stderr)


@cli.command()
@runs_argument
@labels_option
@_evaluation_options("results/evaluate")
@click.option(
    "--average",
    type=click.Choice(AVERAGES),
    help="What is averaged over the clips of a video. [as the protocol has it]",
)
def evaluate(
    runs: tuple[str, ...], labels: str, out: Path, average: str | None, **options: Any
) -> None:
    """Classify videos by fine-tuned networks: accuracy of clips and videos, per class, confusion.

    Several RUNs are one training repeated with other seeds: told are mean and standard error.
    """
    from train.evaluate import experiments

    trial = _trial(runs, out, options, average=average)
    _tell(experiments.classify(trial, labels), out)


@cli.command()
@source_argument
@labels_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="An .h5 file.")
@_layer_option("pool5")
@click.option(
    "--rows",
    type=click.Choice(["video", "clip"]),
    default="video",
    show_default=True,
    help="One row per video, the mean of its clips, or per clip.",
)
@click.option("--clips", default="all", show_default=True, help="Clips per video.")
@click.option(
    "--random", "seed", type=int, help="Random weights of the same network, by this seed."
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=16, show_default=True, help="Clips at a time."
)
@device_option
@precision_option
@workers_option
def features(
    run: str,
    labels: str,
    output: Path,
    layer: str,
    rows: str,
    clips: str,
    seed: int | None,
    batch: int,
    **options: Any,
) -> None:
    """Write what a network makes of videos or clips to HDF5; a stopped command goes on."""
    from train.evaluate.features import compute
    from train.models.weights import read_weights

    weights = read_weights(run)
    weights = weights if seed is None else weights.randomised(seed)
    count, width = compute(
        weights, labels, output, protocol=_protocol("ours", clips=clips, layer=layer),
        machine=_machine(**options), rows=rows, batch=batch,
    )  # fmt: skip
    print(f"{output}: {count} rows of {width} features", file=sys.stderr)


@cli.command()
@runs_argument
@click.option(
    "--queries", required=True, help="Shards of the videos to look up, mostly a test set."
)
@click.option("--gallery", required=True, help="Shards of the videos to search.")
@_evaluation_options("results/retrieve")
@_layer_option("pool5")
def retrieve(
    runs: tuple[str, ...], queries: str, gallery: str, out: Path, layer: str, **options: Any
) -> None:
    """Look up videos by their features: how often one of the class is among the k nearest."""
    from train.evaluate import experiments

    trial = _trial(runs, out, options, layer=layer)
    _tell(experiments.retrieve(trial, queries=queries, gallery=gallery), out)


svm_option = click.option(
    "--svm-c",
    "c",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="C of the linear SVMs.",
)


@cli.command()
@runs_argument
@labels_option
@click.option(
    "--pairs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="View2.mat of ASLAN, or a CSV with the columns first,second,same,fold.",
)
@_evaluation_options("results/similarity")
@_layer_option("conv5")
@svm_option
def similarity(
    runs: tuple[str, ...], labels: str, pairs: Path, out: Path, layer: str, **options: Any
) -> None:
    """Tell whether two videos show the same action (ASLAN): 12 measures, 10 folds, a linear SVM."""
    from train.evaluate import experiments

    trial = _trial(runs, out, options, layer=layer)
    _tell(experiments.tell_similar(trial, labels, pairs=pairs, **options), out)


@cli.command()
@runs_argument
@labels_option
@_evaluation_options("results/scenes")
@_layer_option("conv5")
@svm_option
@click.option("--folds", type=click.IntRange(min=2), help="Leave out a fold, not a video.")
@click.option("--group-by", help="Leave out groups: what their paths share, as in finetune.")
def scenes(runs: tuple[str, ...], labels: str, out: Path, layer: str, **options: Any) -> None:
    """Tell classes of videos by a linear SVM on features (YUPENN), each video left out once."""
    from train.evaluate import experiments

    trial = _trial(runs, out, options, layer=layer)
    _tell(experiments.recognise_scenes(trial, labels, **options), out)


@cli.command()
@source_argument
@labels_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A .png file.")
@click.option("--clip", "clips", type=int, multiple=True, help="Its number; repeatable. [six]")
@device_option
@precision_option
@workers_option
def attention(
    run: str,
    labels: str,
    output: Path,
    clips: tuple[int, ...],
    device: str,
    precision: str,
    workers: int | None,
) -> None:
    """Draw where conv5 looks in some clips, beside their motion boundaries (Figure 6)."""
    from train.evaluate.experiments import show_attention

    machine = _machine(device, workers, precision=precision)
    show_attention(run, labels, output, machine=machine, clips=clips)
    print(f"{output}: attention of {run}", file=sys.stderr)


@cli.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--table", "number", type=click.IntRange(1, 6), required=True, help="Of the paper.")
@click.option("--row", required=True, help="Of the table; docs/evaluation.md lists them.")
@click.option("--column", required=True, help="ucf101, hmdb51, aslan or yupenn.")
@click.option("--figure", help="Of the result. [its headline]")
@click.option(
    "--of",
    type=click.Choice(["result", "random", "scratch"]),
    default="result",
    show_default=True,
    help="What to put: the result, or a floor of it.",
)
@click.option("--smoke", is_flag=True, help="Mark the cell: it shows that everything runs.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A .csv file.")
def cell(
    result: Path,
    number: int,
    row: str,
    column: str,
    figure: str | None,
    of: str,
    smoke: bool,
    output: Path,
) -> None:
    """Put a result into a cell of one of the paper's tables, beside the paper's number.

    A result without its floors, chance and random weights, is refused.
    """
    from train.evaluate.tables import put

    put(result, output, table=number, row=row, column=column, figure=figure, of=of, smoke=smoke)
    print(f"{output}: {result} is in Table {number}, {row}, {column}", file=sys.stderr)


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
def status(run: Path) -> None:
    """Say what the last command in a run's folder has come to, and exit as it did.

    For schedulers: torchrun itself exits with 1 whatever its ranks exit with. 75 also stands for a
    run that is running, or was killed.
    """
    from train.state import run_status

    sentence, code = run_status(run)
    print(sentence)
    sys.exit(code)


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="A .safetensors file."
)
def export(run: Path, output: Path) -> None:
    """Write the backbone of a run's best checkpoint, with its settings, as safetensors."""
    from train.checkpoint import export

    export(run, output)
    print(f"{output}: the network of {run}/best.pt", file=sys.stderr)


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A .png file.")
def curve(run: Path, output: Path) -> None:
    """Draw what a run has learnt over its epochs, as a picture."""
    from train.curve import draw_curve

    draw_curve(run, output)
    print(f"{output}: the learning curve of {run}", file=sys.stderr)


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="An .html file."
)
def report(runs: tuple[Path, ...], output: Path) -> None:
    """Write a page about runs, side by side: curves, labels beside chance, settings, speed.

    It is one file and needs no network.
    """
    from train.report import write_report

    write_report(runs, output)
    print(f"{output}: {', '.join(map(str, runs))}", file=sys.stderr)


@cli.command()
@labels_option
@pretrain_recipe_option
@_PRETRAIN.of("--batch", "Samples per step.", type=int)
@_PRETRAIN.of("--views", "Samples cut from each clip that is read.", type=int)
@loss_option
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Length of each measurement.",
)
@click.option(
    "--baseline",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Compare the loader with the sampler in this Python file.",
)
@_network_options(_PRETRAIN)
@device_option
@precision_option
@workers_option
@compile_option
def bench(
    labels: str,
    recipe_name: str,
    seconds: float,
    baseline: Path | None,
    device: str,
    precision: str,
    workers: int | None,
    compiled: bool,
    **overrides: Any,
) -> None:
    """Measure the loader alone, the step alone and both, and say which one limits."""
    from train import bench

    print(
        bench.run(
            labels,
            recipe=_recipe(RECIPES[recipe_name], overrides),
            machine=_machine(device, workers, precision=precision, compiled=compiled),
            seconds=seconds,
            baseline=baseline,
        )
    )


def main() -> None:
    """Entry point: a user's mistake is one sentence, not a traceback."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # no file of ours may take the place of a closed stream
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    try:
        cli(standalone_mode=False)
        code = EXIT_DONE
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        click.echo(
            "train: Stopped at once; what was saved stands. Run the same command again to go on.",
            err=True,
        )
        code = EXIT_STOPPED
    except (LabelgenError, NonFiniteError, StoppedError) as error:
        if not getattr(error, "silent", False):
            again = " Run the same command again to go on." * isinstance(error, StoppedError)
            click.echo(f"train: {error}{again}", err=True)
        code = exit_code(error)
    except Exception as error:
        code = EXIT_ERROR
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            click.echo("train: PyTorch is not installed; pip install torch.", err=True)
            code = EXIT_MISTAKE
        else:
            traceback.print_exc()
    _leave(code)


def _leave(code: int) -> None:
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        # Leaving in order would wait for ranks that may be waiting for this one.
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
