"""The command `train`: each subcommand parses its options and calls one function."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import labelgen
from labelgen.errors import LabelgenError
from train import NonFiniteError, StoppedError
from train.recipe import INITS, PIXELS, RECIPES, STILL, TARGETS, Recipe
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
batch_norm_option = click.option(
    "--batch-norm/--no-batch-norm", default=None, help="Batch norm after each convolution."
)
recipe_option = click.option(
    "--recipe",
    "recipe_name",
    type=click.Choice(list(RECIPES)),
    default="ucf101",
    show_default=True,
    help="The paper's schedules, and one for small sets; other options override parts of it.",
)


def _recipe_option(flag: str, text: str = "", **kind: Any) -> Callable[[Any], Any]:
    """Declare an option that overrides a field of the recipe; its help ends with the defaults."""
    field = flag.removeprefix("--").replace("-", "_")
    values = {name: getattr(recipe, field) for name, recipe in RECIPES.items()}
    if len(set(values.values())) == 1:
        defaults = _shown(next(iter(values.values())))
    else:
        defaults = "; ".join(f"{name}: {_shown(value)}" for name, value in values.items())
    return click.option(flag, help=f"{text} [{defaults}]".strip(), **kind)


def _shown(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value).removesuffix(".0")


width_option = _recipe_option(
    "--width", "Share of the paper's filters and hidden units.", type=float
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(labelgen.__version__, prog_name="train")
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
    "--group-by",
    help="Regular expression of what videos of one group share in their paths; groups are held "
    "out whole. [UCF101's recordings; other videos singly]",
)
@recipe_option
@_recipe_option("--batch", "Samples per step, over all ranks.", type=int)
@_recipe_option("--views", "Samples cut from each clip that is read.", type=int)
@_recipe_option("--epochs", "Passes over the clips.", type=int)
@_recipe_option("--lr", "Learning rate.", type=float)
@_recipe_option("--lr-every", "Epochs between divisions of the rate by 10.", type=int)
@_recipe_option("--weight-decay", "On fully connected weights.", type=float)
@_recipe_option("--tasks", "Label name prefixes, by comma: motion, motion/grid, ...")
@_recipe_option("--clip-grad", "Largest norm of a step's gradient; 0 takes any.", type=float)
@_recipe_option("--motion-weight", "Of the branch in the loss.", type=float)
@_recipe_option("--appearance-weight", "Of the branch in the loss.", type=float)
@batch_norm_option
@_recipe_option("--init", "Of the weights.", type=click.Choice(INITS))
@width_option
@_recipe_option("--pixels", "Pixel scaling.", type=click.Choice(list(PIXELS)))
@_recipe_option(
    "--targets",
    "Regress the 1-based labels, or labels of zero mean and unit variance.",
    type=click.Choice(TARGETS),
)
@click.option(
    "--drop-still",
    type=float,
    is_flag=False,
    flag_value=STILL,
    help=f"Leave out clips of less motion energy than this. [keep all; {STILL} without a value]",
)
@_recipe_option("--seed", type=int)
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
    "--skip-bad", is_flag=True, help="Leave out clips that cannot be read, instead of ending."
)
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
    group_by: str | None,
    recipe_name: str,
    device: str,
    precision: str,
    workers: int | None,
    accumulate: int,
    compiled: bool,
    skip_bad: bool,
    save_every: int,
    tensorboard: bool,
    **overrides: Any,
) -> None:
    """Train C3D on label shards, or go on with it."""
    from train import loop

    with recorded(out):
        machine = _machine(
            device,
            workers,
            precision=precision,
            accumulate=accumulate,
            compiled=compiled,
            skip_bad=skip_bad,
        )
        loop.pretrain(
            labels=labels,
            out=out,
            val=val,
            recipe=_recipe(recipe_name, overrides),
            machine=machine,
            group_by=group_by,
            save_every=save_every,
            tensorboard=tensorboard,
        )


def _machine(device: str, workers: int | None, **settings: Any) -> Machine:
    """Fill in the number of workers that suits the device where none was given."""
    from train.device import Machine, default_workers

    workers = default_workers(device) if workers is None else workers
    return Machine(device=device, workers=workers, **settings)


def _recipe(name: str, overrides: dict[str, Any]) -> Recipe:
    """Override a named recipe with the options that were given."""
    given = {key: value for key, value in overrides.items() if value is not None}
    if "tasks" in given:
        given["tasks"] = tuple(part.strip() for part in given["tasks"].split(","))
    return Recipe.from_dict({**RECIPES[name].as_dict(), **given})


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
    print(f"{output}: the backbone of {run}/best.pt", file=sys.stderr)


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A .png file.")
def curve(run: Path, output: Path) -> None:
    """Draw what a run has learnt over its epochs, as a picture."""
    from train.curve import draw_curve

    draw_curve(run, output)
    print(f"{output}: the learning curve of {run}", file=sys.stderr)


@cli.command()
@labels_option
@recipe_option
@_recipe_option("--batch", "Samples per step.", type=int)
@_recipe_option("--views", "Samples cut from each clip that is read.", type=int)
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
@batch_norm_option
@width_option
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
            recipe=_recipe(recipe_name, overrides),
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
        click.echo("train: Stopped at once; the last checkpoint stands, if there is one.", err=True)
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
