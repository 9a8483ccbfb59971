"""The command line of labelgen: it parses, and calls one function per command.

Whatever needs OpenCV, Numba or HDF5 is imported inside the command, so that ``--help`` is fast.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

import labelgen
from labelgen.errors import LabelgenError
from labelgen.flow.methods import DEFAULT_BOUND, DEFAULT_METHOD, FLOW_LAYOUTS
from labelgen.labels.profiles import PROFILES
from labelgen.options import grouped
from labelgen.progress import count_text, size_text
from labelgen.shards.settings import FRAME_FORMATS, ExtractSettings, default_crops
from labelgen.signals import stop_once

_INTERRUPTED = 130
_INCOMPLETE = 3
_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)

root_option = click.option(
    "--root", type=_FOLDER, default=".", show_default=True, help="Folder that holds the videos."
)
frames_option = click.option(
    "--frames-from",
    type=_FOLDER,
    help="Folder of folders of numbered images, one per video, in place of --root; see "
    "docs/inputs.md.",
)
page_option = click.option("-o", "--output", type=_FILE, required=True, help="HTML file to write.")
shards_argument = click.argument("shards", type=_FOLDER)
threads_option = click.option(
    "--workers", type=click.IntRange(min=1), help="Threads.  [default: one per core]"
)


def _cores(workers: int | None) -> int:
    """Return the number asked for, or that of the cores this process may use."""
    from joblib import cpu_count

    return cpu_count() if workers is None else workers


def _setting(flag: str, **kind: Any) -> Callable[[Any], Any]:
    """Declare an option that is a field of `ExtractSettings`, with the field's default."""
    fields = {field.name: field.default for field in dataclasses.fields(ExtractSettings)}
    default = fields[flag.removeprefix("--").replace("-", "_")]
    return click.option(flag, default=default, show_default=True, **kind)


class _Crop(click.ParamType):
    """A crop's upper left corner, as ``8,29``."""

    name = "TOP,LEFT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        top, _, left = str(value).partition(",")
        if not (top.strip().isdecimal() and left.strip().isdecimal()):
            self.fail(f"{value!r} is no crop; give top and left, as in 8,29", param, ctx)
        return int(top), int(left)


class _Commands(click.Group):
    """Turns a user's mistake into one sentence, and Ctrl-C into its usual exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Begin with three standard streams: no file of ours may take the place of a closed one."""
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:
                # It lives as long as the process.
                setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with stop_once(at_end_of_process=True):
            try:
                return super().invoke(ctx)
            except LabelgenError as error:
                raise _Mistake(str(error)) from error
            except KeyboardInterrupt:
                click.echo("\nstopped; run the same command again to go on where it was", err=True)
                sys.exit(_INTERRUPTED)


class _Mistake(click.ClickException):
    exit_code = 2


what_options = grouped(
    click.option(
        "--manifest",
        "manifest_file",
        type=_FILE,
        help="CSV of videos.  [default: every video below --root]",
    ),
    root_option,
    frames_option,
    click.option(
        "--out",
        type=_FOLDER,
        default="shards",
        show_default=True,
        help="Folder for the shards; sealed shards in it are kept.",
    ),
    click.option("--name", help="Beginning of the shards' names.  [default: the manifest's name]"),
    click.option(
        "--flow",
        default=DEFAULT_METHOD,
        show_default=True,
        metavar="METHOD[:PRESET][,NAME=VALUE...]",
        help="tvl1, tvl1:fast, tvl1:accurate, brox, opencv-tvl1, farneback or dis, and any of its "
        "parameters; see docs/flow.md. Or precomputed, with --flow-root.",
    ),
    click.option(
        "--flow-root",
        type=_FOLDER,
        help="Folder of the images of precomputed flow; see docs/inputs.md.",
    ),
    click.option(
        "--flow-bound",
        type=float,
        help="Pixels that the level 255 of precomputed flow stands for.  [default: 20]",
    ),
    click.option(
        "--flow-size",
        default="clip",
        show_default=True,
        help="Frames that flow is computed on: clip (128x171), short:S, WxH or source.",
    ),
    click.option(
        "--crops",
        help="Crops to label: all (1020), center, grid:S (every S pixels) or random:K.  "
        "[default: all; center with --profile authors]",
    ),
    _setting("--seed", type=click.IntRange(min=0), help="Seed of random:K."),
    _setting(
        "--profile",
        type=click.Choice(PROFILES),
        help="The paper's conventions, or the released code's with its quirks.",
    ),
    _setting("--frames", help=f"How frames are stored: {FRAME_FORMATS}."),
    _setting(
        "--store-flow",
        type=click.Choice(["none", "float16", "float32"]),
        is_flag=False,
        flag_value="float16",
        help="Store flow too; float16 if no type follows.",
    ),
    click.option("--no-labels", is_flag=True, help="Frames and classes only: no flow, no labels."),
    click.option("--no-boundaries", is_flag=True, help="Do not store motion boundaries."),
    _setting(
        "--clip-stride",
        type=click.IntRange(min=1),
        help="Frames from one clip's start to the next one's.",
    ),
    _setting(
        "--clips-per-shard",
        type=click.IntRange(min=1),
        help="About how many clips a shard holds.",
    ),
)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(labelgen.__version__, prog_name="labelgen")
def main() -> None:
    """Turn raw videos into shards of 27 motion and appearance labels per 16-frame clip.

    \b
    labelgen manifest folder --root videos -o videos.csv
    labelgen check --manifest videos.csv --root videos
    labelgen extract --manifest videos.csv --root videos --out shards --workers 8
    labelgen verify shards
    """  # noqa: D301  # click's mark for lines to keep


@main.command()
@click.argument("dataset")
@root_option
@frames_option
@click.option(
    "--splits",
    "lists",
    type=_FOLDER,
    help="Folder of the official lists.  [default: where they unpack below the root]",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    help="Split to list; may be given several times.  [default: the dataset's first]",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Fail, and write no manifest, where not all is found as expected.",
)
@click.option("-o", "--output", type=_FILE, required=True, help="CSV file to write.")
def manifest(
    dataset: str,
    root: Path,
    frames_from: Path | None,
    lists: Path | None,
    splits: tuple[str, ...],
    strict: bool,
    output: Path,
) -> None:
    """Write the per-video CSV of a DATASET that lies under --root.

    DATASET is a name in data_manifest.csv (demo, ucf101, hmdb51, kinetics400, aslan, yupenn), or
    "folder" for any folder of videos, in which a video's class is its parent folder. Prints
    expected against found.
    """
    from labelgen.video.datasets import write_dataset_manifest

    place = frames_from or root
    found = write_dataset_manifest(
        dataset,
        output,
        root=place,
        lists=lists,
        splits=splits,
        strict=strict,
        frames=frames_from is not None,
    )
    for line in found:
        click.echo(line, err=True)
    # Make goes on by itself.
    if "MAKELEVEL" not in os.environ:
        where = ("--frames-from" if frames_from else "--root", place)
        words = ("labelgen", "extract", "--manifest", output, *where, "--out", "shards")
        click.echo(f"next: {shlex.join(map(str, words))}", err=True)


@main.command()
@click.option(
    "--manifest",
    "manifest_file",
    type=_FILE,
    help="CSV of videos.  [default: every video below --root]",
)
@root_option
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes; 0 works in this one, where a decoder that crashes ends the check.  "
    "[default: one per core]",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0, min_open=True),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Give a video up that yields no frame for so long.",
)
@click.option(
    "--write-manifest", "good", type=_FILE, help="CSV file to write: the rows that are not bad."
)
def check(
    manifest_file: Path | None, root: Path, workers: int | None, patience: float, good: Path | None
) -> None:
    """Decode every video, compute nothing, and list what is wrong.

    Prints one CSV line per video: its verdict, the reason, frames claimed and found, and so on. A
    video is "bad" where extract would list it in failures.csv, for the same reason, and has a
    "note" where it can be used but something is worth knowing. Exit codes: 0 none is bad, 1 some
    are, 2 a mistake, 130 interrupted.
    """
    from labelgen.video.check import check as check_all

    lines = csv.writer(sys.stdout, lineterminator="\n")

    def tell(cells: Sequence[str | int]) -> None:
        lines.writerow(cells)
        sys.stdout.flush()

    summary = check_all(
        manifest_file, root=root, workers=_cores(workers), patience=patience, tell=tell, good=good
    )
    for line in summary.lines():
        click.echo(line, err=True)
    if summary.bad:
        sys.exit(1)


@main.command()
@what_options
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes; 0 works in this one. Where there are fewer shards, the others help inside "
    "them.  [default: one per core]",
)
@click.option(
    "--add",
    is_flag=True,
    help="Make further shards of videos that are new; without it, they are named and refused.",
)
@click.option(
    "--retry-failures",
    "retry",
    is_flag=True,
    help="Make the shards again that hold videos whose failure may pass, such as missing ones.",
)
@click.option(
    "--max-failures",
    type=click.IntRange(min=0),
    help="Stop when more videos than this fail.  [default: never]",
)
@click.option(
    "--video-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Leave out a video that takes longer, twice.  [default: never]",
)
@click.option(
    "--part",
    metavar="I/N",
    help="Make the I-th of N equal shares of the shards, 0 <= I < N: one command per machine.",
)
@click.option("--one-based", is_flag=True, help="Count the I of --part from 1.")
@click.option(
    "--scratch",
    type=_FOLDER,
    help="Folder to write shards in until they are whole, where --out is on a slow file system.",
)
@click.option(
    "--engine",
    type=click.Choice(["processes", "dask"]),
    default="processes",
    show_default=True,
    help="Who makes the shards: processes of this machine, or the workers of a Dask cluster.",
)
@click.option("--scheduler", metavar="ADDRESS", help="Of --engine dask: tcp://host:8786.")
def extract(
    *,
    engine: str,
    scheduler: str | None,
    workers: int | None,
    add: bool,
    retry: bool,
    max_failures: int | None,
    video_timeout: float | None,
    part: str | None,
    one_based: bool,
    scratch: Path | None,
    **what: Any,
) -> None:
    """Cut videos into 16-frame clips, label them, and write sealed HDF5 shards.

    Run the same command again after an interruption: sealed shards are skipped. Run it twice at
    once, on one machine or on several that share --out: each makes shards that the other does not.
    Videos that give no clip are listed in failures.csv. Exit codes: 0 done, 1 not one clip of what
    was to be made, 2 a mistake, 130 interrupted.
    """
    from labelgen.run.engines import Limits
    from labelgen.run.pipeline import run
    from labelgen.shards.plan import ALL, parse_part

    if one_based and part is None:
        raise LabelgenError("--one-based says how --part counts; give --part I/N")
    if (engine == "dask") != (scheduler is not None):
        raise LabelgenError("--engine dask and --scheduler ADDRESS go together; give both")
    if scheduler is not None and (workers is not None or video_timeout is not None):
        raise LabelgenError(
            "--workers and --video-timeout are of processes of this machine; leave them out with "
            "--engine dask, whose workers are started by `dask worker`"
        )
    summary = run(
        **_what(**what),
        limits=Limits(
            workers=_cores(workers),
            video_timeout=video_timeout,
            max_failures=max_failures,
        ),
        add=add,
        retry=retry,
        part=ALL if part is None else parse_part(part, one_based=one_based),
        scratch=scratch,
        scheduler=scheduler,
    )
    for line in summary.lines():
        click.echo(line, err=True)
    if summary.in_vain:
        sys.exit(1)


def _what(
    *,
    manifest_file: Path | None,
    root: Path,
    frames_from: Path | None,
    out: Path,
    name: str | None,
    flow: str,
    flow_root: Path | None,
    flow_bound: float | None,
    flow_size: str,
    crops: str | None,
    profile: str,
    no_labels: bool,
    no_boundaries: bool,
    **settings: Any,
) -> dict[str, Any]:
    """Return what `what_options` say to extract, from where and to where."""
    from labelgen.flow.methods import parse_flow

    return {
        "manifest": manifest_file,
        "root": frames_from or root,
        "out": out,
        "name": name,
        "flow_root": flow_root,
        "settings": ExtractSettings(
            source="frames" if frames_from else "videos",
            flow=parse_flow(flow, size=flow_size, bound=flow_bound),
            crops=crops or default_crops(profile),
            profile=profile,
            labels=not no_labels,
            boundaries=not no_boundaries,
            **settings,
        ),
    }


@main.command()
@what_options
@click.option("--workers", type=click.IntRange(min=1), help="Threads.  [default: one per core]")
@click.option("--add", is_flag=True, help="Count further shards of videos that are new, too.")
def plan(*, workers: int | None, add: bool, **what: Any) -> None:
    """Print what `extract` with the same options would make, as JSON, and make nothing.

    Numbers of shards, videos, clips and about how many bytes, of all and of each set; and how many
    shards are sealed already. Lengths of videos are looked up where the manifest has none.
    """
    from labelgen.run.pipeline import plan as plan_run

    click.echo(json.dumps(plan_run(**_what(**what), workers=_cores(workers), add=add), indent=2))


@main.command()
@shards_argument
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(shards: Path, as_json: bool) -> None:
    """Print how far SHARDS has come: what is sealed, being made, missing, and what failed.

    Exit codes: 0 complete, 2 a mistake, 3 incomplete.
    """
    from labelgen.shards.status import read_status

    found = read_status(shards)
    for line in [json.dumps(found.as_dict(), indent=2)] if as_json else found.lines():
        click.echo(line)
    if not found.is_complete:
        sys.exit(_INCOMPLETE)


@main.command()
@shards_argument
@threads_option
def inspect(shards: Path, workers: int | None) -> None:
    """Print what SHARDS holds: sizes, settings, and how often each label takes each value."""
    from labelgen.shards.summary import summary_lines

    for line in summary_lines(shards, workers=_cores(workers)):
        click.echo(line)


@main.command()
@shards_argument
@threads_option
def verify(shards: Path, workers: int | None) -> None:
    """Check that SHARDS is complete and undamaged; exit with 1 and name what is wrong if not."""
    from labelgen.shards.verify import find_problems

    checked, problems = find_problems(shards, workers=_cores(workers))
    for problem in problems:
        click.echo(problem)
    click.echo(f"{count_text(checked, 'shard')} checked, {count_text(len(problems), 'problem')}")
    if problems:
        sys.exit(1)


@main.command()
@shards_argument
@click.option("-o", "--output", type=_FOLDER, required=True, help="Folder for the images.")
@click.option(
    "--layout",
    type=click.Choice(FLOW_LAYOUTS),
    default=FLOW_LAYOUTS[0],
    show_default=True,
    help="VIDEO/flow_x_00001.jpg, or u/VIDEO/frame000001.jpg.",
)
@click.option(
    "--bound",
    type=float,
    default=DEFAULT_BOUND,
    show_default=True,
    help="Pixels that the level 255 stands for; larger displacements are cut.",
)
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    default=95,
    show_default=True,
    help="Of JPEG.",
)
@click.option("--png", is_flag=True, help="PNG, which loses nothing more, in place of JPEG.")
@threads_option
def export_flow(
    shards: Path,
    output: Path,
    *,
    layout: str,
    bound: float,
    quality: int,
    png: bool,
    workers: int | None,
) -> None:
    """Write the flow in SHARDS as images of 8 bits, in the layout of denseflow and its relatives.

    The shards must have been made with --store-flow. Nothing is written over; the same command
    goes on after an interruption. Exit code 1 if a video was left out.
    """
    from labelgen.shards.flow_folders import export_flow

    exported = export_flow(
        shards,
        output,
        layout=layout,
        bound=bound,
        quality=None if png else quality,
        workers=_cores(workers),
    )
    for line in exported.lines(output, bound):
        click.echo(line, err=True)
    if exported.problems:
        sys.exit(1)


@main.command()
@shards_argument
@click.option("-o", "--output", type=_FILE, required=True, help="HDF5 file to write.")
def index(shards: Path, output: Path) -> None:
    """Write one small HDF5 file that shows all of SHARDS as a whole.

    It holds the numbers of clips and videos, the labels of the central crop, and of each clip the
    shard and the row there, for frames and boundaries; keep it where it is, relative to SHARDS.
    """
    from labelgen.shards.index import write_index

    clips = write_index(shards, output)
    click.echo(f"{output}: {count_text(clips, 'clip')}", err=True)


@main.command()
@click.argument("source", metavar="SHARDS|VIDEO", type=click.Path(path_type=Path))
@click.option(
    "--clip", type=click.IntRange(min=0), help="Number of the clip in SHARDS.  [default: 0]"
)
@click.option("--video", metavar="PATH", help="In place of --clip: its video, as in the manifest.")
@click.option(
    "--start",
    type=click.IntRange(min=0),
    help="First frame of the clip in its video.  [default: its first clip]",
)
@click.option("--crop", type=_Crop(), help="The crop to show.  [default: the most central one]")
@click.option("-o", "--output", type=_FILE, required=True, help="PNG, PDF or SVG file to write.")
def show(
    source: Path,
    clip: int | None,
    video: str | None,
    start: int | None,
    crop: tuple[int, int] | None,
    output: Path,
) -> None:
    """Draw one clip of SHARDS, or 16 frames of a VIDEO file, with all that its 27 labels say.

    A video is labelled as `extract` does by default; of shards, stored labels are shown.
    """
    from labelgen.pictures.figure import show

    view = show(source, output, clip=clip, video=video, start=start, crop=crop)
    click.echo(f"{output}: {view.video} from frame {view.start}", err=True)


@main.command()
@shards_argument
@page_option
@click.option(
    "--examples",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Clips to draw, from the one with most motion on.",
)
@threads_option
def report(shards: Path, output: Path, examples: int, workers: int | None) -> None:
    """Write a page about SHARDS: settings, failures, the distribution of labels, examples.

    It is one file, needs no network, and can be written while shards are still being made.
    """
    from labelgen.pictures.report import write_report

    write_report(shards, output, examples=examples, workers=_cores(workers))
    click.echo(f"{output}: a page about {shards}", err=True)


@main.command()
@shards_argument
@page_option
@click.option(
    "--clips",
    type=click.IntRange(min=1),
    default=24,
    show_default=True,
    help="Clips on the page at most, spread over the videos.",
)
def explore(shards: Path, output: Path, clips: int) -> None:
    """Write a page on which one drags the crop over clips of SHARDS and sees labels change.

    It is one file and needs no network. It needs frames and the labels of all 1020 crops, which
    extract stores by default.
    """
    from labelgen.pictures.explorer import write_explorer

    count = write_explorer(shards, output, clips=clips)
    size = size_text(output.stat().st_size)
    click.echo(f"{output}: {count_text(count, 'clip')}, {size}; open it in a browser", err=True)


if __name__ == "__main__":
    main()
