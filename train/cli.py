"""The command `train`: each subcommand parses its options and calls one function."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labelgen.errors import LabelgenError
from train.recipe import BRANCHES, INITS, PIXELS, RECIPES, STILL, TARGETS, Recipe

if TYPE_CHECKING:
    from train.device import Machine

EXIT_MISTAKE, EXIT_NON_FINITE, EXIT_STOPPED = 2, 3, 75
"""Exit codes beside 0 (done). 75 is EX_TEMPFAIL: run the same command again."""

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
    help="bf16 autocast; auto: where the hardware has bf16 matrix units.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Loader processes per rank; 0 loads in this process. [default: 0 on a CPU, else up to 8]",
)
compile_option = click.option("--compile", "compiled", is_flag=True, help="Use torch.compile.")
batch_norm_option = click.option(
    "--batch-norm", is_flag=True, help="Batch norm after each convolution."
)

width_option = click.option(
    "--width", type=float, help="Share of the paper's filters and hidden units. [1]"
)


@click.group()
@click.version_option(package_name="motion-appearance")
def cli() -> None:
    """Pre-train C3D on motion and appearance labels.

    Exit codes: 0 done, 2 a mistake told in one sentence, 3 the loss was no longer finite, 75
    stopped by a signal with all saved: run the same command again to go on.
    """


@cli.command()
@labels_option
@click.option(
    "--val",
    default="0.05",
    show_default=True,
    help="Held-out shards, or the fraction of videos to hold out; 0 for none.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="runs/pretrain",
    show_default=True,
    help="Folder of the run; one that holds an unfinished run of the same settings is resumed.",
)
@click.option(
    "--recipe",
    "recipe_name",
    type=click.Choice(list(RECIPES)),
    default="ucf101",
    show_default=True,
    help="The paper's schedule; each of the next options overrides a part of it.",
)
@click.option("--batch", type=int, help="Clips per step, over all ranks. [ucf101, kinetics: 30]")
@click.option("--epochs", type=int, help="[ucf101, kinetics: 20]")
@click.option("--lr", type=float, help="[ucf101: 0.001; kinetics: 0.0005]")
@click.option(
    "--lr-every", type=int, help="Epochs between divisions by 10. [ucf101: 5; kinetics: 7]"
)
@click.option("--weight-decay", type=float, help="On fully connected weights. [0.005]")
@click.option(
    "--tasks",
    help=f"Label name prefixes, by comma: motion, motion/grid, ... [{','.join(BRANCHES)}]",
)
@click.option("--motion-weight", type=float, help="Of the branch in the loss. [1]")
@click.option("--appearance-weight", type=float, help="Of the branch in the loss. [1]")
@batch_norm_option
@click.option("--init", type=click.Choice(INITS), help="Of the weights. [release]")
@width_option
@click.option("--pixels", type=click.Choice(list(PIXELS)), help="Pixel scaling. [raw]")
@click.option(
    "--targets",
    type=click.Choice(TARGETS),
    help="Regress the 1-based labels, or labels of zero mean and unit variance. [raw]",
)
@click.option(
    "--drop-still",
    type=float,
    is_flag=False,
    flag_value=STILL,
    help=f"Leave out clips of less motion energy than this. [keep all; {STILL} without a value]",
)
@click.option("--seed", type=int, help="[0]")
@device_option
@precision_option
@workers_option
@click.option(
    "--accumulate",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Compute each batch in this many parts.",
)
@compile_option
@click.option(
    "--save-every",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Steps between checkpoints inside an epoch; 0: at its end only.",
)
@click.option("--tensorboard", is_flag=True, help="Also write TensorBoard events.")
def pretrain(
    labels: str,
    val: str,
    out: Path,
    recipe_name: str,
    device: str,
    precision: str,
    workers: int | None,
    accumulate: int,
    compiled: bool,
    save_every: int,
    tensorboard: bool,
    **overrides: Any,
) -> None:
    """Train C3D on label shards, or go on with it."""
    from train import loop

    machine = _machine(
        device, workers, precision=precision, accumulate=accumulate, compiled=compiled
    )
    recipe = _recipe(recipe_name, overrides)
    try:
        loop.pretrain(
            labels=labels,
            out=out,
            val=val,
            recipe=recipe,
            machine=machine,
            save_every=save_every,
            tensorboard=tensorboard,
        )
    except loop.NonFiniteLossError as error:
        _leave(str(error), EXIT_NON_FINITE)
    except loop.StoppedError as error:
        _leave(f"{error} Run the same command again to go on.", EXIT_STOPPED)


def _machine(device: str, workers: int | None, **settings: Any) -> Machine:
    """Fill in the number of workers that suits the device where none was given."""
    from train import loop

    workers = loop.default_workers(device) if workers is None else workers
    return loop.Machine(device=device, workers=workers, **settings)


def _recipe(name: str, overrides: dict[str, Any]) -> Recipe:
    """Override a named recipe with the options that were given."""
    given = {key: value for key, value in overrides.items() if value not in (None, False)}
    if "tasks" in given:
        given["tasks"] = tuple(part.strip() for part in given["tasks"].split(","))
    return Recipe.from_dict({**RECIPES[name].as_dict(), **given})


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="A .safetensors file."
)
def export(run: Path, output: Path) -> None:
    """Write the backbone of a run's best checkpoint, with its settings, as safetensors."""
    from train.checkpoint import export

    export(run, output)


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A .png file.")
def curve(run: Path, output: Path) -> None:
    """Draw a run's explained variance over its epochs."""
    from train.log import draw_curve

    draw_curve(run, output)


@cli.command()
@labels_option
@click.option(
    "--batch", type=click.IntRange(min=1), default=30, show_default=True, help="Clips per step."
)
@click.option(
    "--seconds", type=float, default=10.0, show_default=True, help="Length of each measurement."
)
@click.option(
    "--baseline",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Compare the loader with the sampler in this Python file.",
)
@batch_norm_option
@width_option
@device_option
@precision_option
@workers_option
@compile_option
def bench(
    labels: str,
    batch: int,
    seconds: float,
    baseline: Path | None,
    batch_norm: bool,
    width: float | None,
    device: str,
    precision: str,
    workers: int | None,
    compiled: bool,
) -> None:
    """Measure the loader alone, the step alone and both, and say which one limits."""
    from train import bench

    print(
        bench.run(
            labels,
            recipe=Recipe(batch=batch, batch_norm=batch_norm, width=width or 1.0),
            machine=_machine(device, workers, precision=precision, compiled=compiled),
            seconds=seconds,
            baseline=baseline,
        )
    )


def _leave(message: str, code: int) -> None:
    click.echo(f"train: {message}", err=True)
    sys.exit(code)


def main() -> None:
    """Entry point: a user's mistake is one sentence, not a traceback."""
    try:
        cli()
    except LabelgenError as error:
        _leave(str(error), EXIT_MISTAKE)


if __name__ == "__main__":
    main()
