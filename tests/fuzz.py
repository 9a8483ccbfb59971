"""Feed damaged real files to the commands: each must say so, and none may crash, hang or believe.

    python tests/fuzz.py [--seconds 600] [--seed N] [--data ../shared/data] [--keep fuzz]

Each input is a folder in which a video, a frame, an image of flow, a manifest, a shard or a record
beside shards was damaged at random. Commands run on it in a process of their own; where that dies
or takes too long they run again as a user would start them, with workers. What is found wrong stays
in --keep with a file that says how. The exit code is 1 if anything was found.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

HANG = 120.0
"""Seconds of wall time for one input; thrice that for a command as a user starts it."""
INPUTS_PER_PROCESS = 300
VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".webm")
LARGEST = 400_000
QUICK = ("--flow", "dis", "--crops", "center", "--clips-per-shard", "2")
Command = tuple[str, ...]


class Outcome(NamedTuple):
    """What came of a command: its exit code, what it printed, and the traceback if it raised."""

    command: Command
    code: int
    out: str
    err: str
    raised: str = ""


# What is damaged.


def damaged(content: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Damage bytes in one to three ways; the result differs."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(WAYS)(data, rng, others)
    return bytes(data) if data != content else bytes(data[:-1])


def flip_bits(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 4, 40))):
        if data:
            data[place(data, rng)] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def blank(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    start, size = place(data, rng), rng.choice((1, 16, 512, 4096))
    data[start : start + size] = bytes([rng.choice((0, 255))]) * len(data[start : start + size])


def take_out(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    start = place(data, rng)
    del data[start : start + rng.choice((1, 3, 64, 4096))]


def repeat(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    start = place(data, rng)
    data[start:start] = data[start : start + rng.choice((1, 64, 4096))]


def extreme_number(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    start, size = place(data, rng), rng.choice((2, 4, 8))
    value = rng.choice((0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1))
    data[start : start + size] = value.to_bytes(size, rng.choice(("little", "big")))


def splice(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    other = rng.choice(others)
    data[place(data, rng) :] = other[rng.randrange(len(other) + 1) :]


def place(data: bytearray, rng: random.Random) -> int:
    """Anywhere, and half of the time near the beginning, where headers are."""
    return rng.randrange(max(1, min(len(data), rng.choice((200, 4000, 1 << 30, 1 << 30)))))


WAYS = (flip_bits, cut, blank, take_out, repeat, extreme_number, splice)


def odd_text(text: str, rng: random.Random) -> str:
    """Change a text as people and spreadsheets do."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 4))):
        k = rng.randrange(len(lines))
        cells = lines[k].split(",")
        j = rng.randrange(len(cells))
        cell, other = cells[j], lines[rng.randrange(len(lines))]
        cells[j] = rng.choice(
            (
                *("", "-1", "9" * 30, "nan", f"../{cell}", f"/{cell}", f'"{cell}', f"{cell},x"),
                *(f"{cell}\0", f"é\u2028{cell}", cell.upper(), other, f"{cell}/{cell}"),
            )
        )
        lines[k] = ",".join(cells)
        if rng.random() < 0.2:
            lines.insert(k, lines[rng.randrange(len(lines))])
    return rng.choice(("\n", "\n", "\r\n", "\r")).join(lines)


def disordered(folder: Path, rng: random.Random, others: list[bytes]) -> None:
    """Damage, lose, rename, double or replace files of a folder of images."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        if not files:
            return
        file = rng.choice(files)
        way = rng.randrange(8)
        if way < 3:
            file.write_bytes(damaged(file.read_bytes(), rng, others))
        elif way == 3:
            file.unlink()
        elif way == 4:
            file.rename(file.with_name(rng.choice(("x.jpg", "frame1.jpg", "img_00000.png", "7"))))
        elif way == 5:
            shutil.copy(file, file.with_name(f"frame{rng.choice((0, 3, 99, 10**20))}.jpg"))
        elif way == 6:
            file.unlink()
            file.mkdir()
        else:
            file.write_bytes(rng.choice((b"", rng.choice(files).read_bytes())))


# Inputs: each kind fills a folder, names the commands, and judges what came of them.


class Seeds(NamedTuple):
    """What is damaged: files with their suffixes, folders of frames, of flow and of shards."""

    videos: list[tuple[str, bytes]]
    frames: Path
    flow: Path
    shards: list[Path]

    @property
    def contents(self) -> list[bytes]:
        return [content for _, content in self.videos]


def extract(folder: Path, *options: str, out: str = "shards") -> Command:
    return ("extract", *options, "--out", str(folder / out), *QUICK)


def fill_video(folder: Path, seeds: Seeds, rng: random.Random) -> list[Command]:
    suffix, content = rng.choice(seeds.videos)
    (folder / "videos").mkdir()
    (folder / "videos" / f"a{suffix}").write_bytes(damaged(content, rng, seeds.contents))
    root = ("--root", str(folder / "videos"))
    return [("check", *root), extract(folder, *root), ("verify", str(folder / "shards"))]


def fill_frames(folder: Path, seeds: Seeds, rng: random.Random) -> list[Command]:
    shutil.copytree(seeds.frames, folder / "frames")
    disordered(folder / "frames", rng, seeds.contents)
    frames = ("--frames-from", str(folder / "frames"))
    return [extract(folder, *frames), ("verify", str(folder / "shards"))]


def fill_flow(folder: Path, seeds: Seeds, rng: random.Random) -> list[Command]:
    shutil.copytree(seeds.flow, folder / "flow")
    disordered(folder / "flow", rng, seeds.contents)
    command = extract(folder, "--frames-from", str(seeds.frames))
    flow = ("--flow", "precomputed", "--flow-root", str(folder / "flow"))
    profile = ("--profile", rng.choice(("paper", "authors")))
    return [(*command, *flow, *profile), ("verify", str(folder / "shards"))]


def fill_manifest(folder: Path, seeds: Seeds, rng: random.Random) -> list[Command]:
    suffix, content = seeds.videos[0]
    (folder / "videos").mkdir()
    rows = ["path,class_name,class_index,split,frames"]
    for k in range(3):
        (folder / "videos" / f"{k}{suffix}").write_bytes(content)
        rows.append(f"{k}{suffix},class {k % 2},{k % 2},train,{60 + k}")
    text = odd_text("\n".join(rows) + "\n", rng).encode("utf-8", "surrogatepass")
    whole = rng.random() < 0.7
    (folder / "m.csv").write_bytes(text if whole else damaged(text, rng, seeds.contents))
    what = ("--manifest", str(folder / "m.csv"), "--root", str(folder / "videos"))
    return [
        ("check", *what),
        ("plan", *what, "--out", str(folder / "shards"), *QUICK),
        (*extract(folder, *what), "--no-labels"),
        ("verify", str(folder / "shards")),
    ]


def fill_shard(folder: Path, seeds: Seeds, rng: random.Random) -> list[Command]:
    shutil.copytree(rng.choice(seeds.shards), folder / "shards")
    file = rng.choice(sorted((folder / "shards").glob("*.h5")))
    content = file.read_bytes()
    if rng.random() < 0.6:  # of the same size: only the checksum tells, and the reader looks at it
        data = bytearray(content)
        while data == content:
            rng.choice((flip_bits, blank, extreme_number))(data, rng, [])
            data = data[: len(content)]
        file.write_bytes(data)
    else:
        file.write_bytes(damaged(content, rng, seeds.contents))
    shards = str(folder / "shards")
    return [("verify", shards), ("read", shards), ("status", shards)]


def fill_record(folder: Path, seeds: Seeds, rng: random.Random) -> list[Command]:
    shutil.copytree(rng.choice(seeds.shards), folder / "shards")
    files = [file for file in sorted((folder / "shards").iterdir()) if file.suffix != ".h5"]
    file = rng.choice([file for file in files if file.is_file()])
    content = file.read_bytes()
    if file.suffix == ".csv" and rng.random() < 0.5:
        content = odd_text(content.decode(), rng).encode()
    file.write_bytes(damaged(content, rng, seeds.contents))
    shards = str(folder / "shards")
    named = ("status", "verify", "inspect", "read")
    return [*((name, shards) for name in named), ("index", shards, "-o", str(folder / "all.h5"))]


KINDS: dict[str, Callable[[Path, Seeds, random.Random], list[Command]]] = {
    "video": fill_video,
    "frames": fill_frames,
    "flow": fill_flow,
    "manifest": fill_manifest,
    "shard": fill_shard,
    "record": fill_record,
}


def complaints(kind: str, folder: Path, outcomes: list[Outcome]) -> list[str]:
    """Return what is wrong with the outcomes of an input's commands, a sentence each."""
    found = []
    for outcome in outcomes:
        name = outcome.command[0]
        if outcome.raised or outcome.code not in (0, 1, 2, 3) or "Traceback" in outcome.err:
            found.append(f"{name} crashed: exit code {outcome.code}\n{outcome.raised}{outcome.err}")
        elif outcome.code == 2 and not any(line.strip() for line in outcome.err.splitlines()):
            found.append(f"{name} says nothing of the mistake")
    by_name = {outcome.command[0]: outcome for outcome in outcomes}
    if kind == "shard" and by_name["verify"].code == 0:
        found.append("verify accepts a damaged shard")
    made = by_name.get("extract")
    if made and made.code != 2:
        if by_name["verify"].code:
            found.append(f"what extract made is not whole:\n{by_name['verify'].out}")
        failed = failures(folder)
        found += [
            f"unforeseen: {path}: {why}" for path, (code, why) in failed.items() if code == "error"
        ]
        if kind == "video":
            found += disagreements(by_name["check"], failed)
    return found


def failures(folder: Path) -> dict[str, tuple[str, str]]:
    with (folder / "shards" / "failures.csv").open(encoding="utf-8", newline="") as stream:
        return {row["path"]: (row["reason"], row["message"]) for row in csv.DictReader(stream)}


def disagreements(check: Outcome, failed: dict[str, tuple[str, str]]) -> list[str]:
    """Return where `check` calls a video bad and `extract` does not, or for another reason."""
    found = []
    for row in csv.DictReader(io.StringIO(check.out)):
        bad = row["reason"].partition(":")[0] if row["verdict"] == "bad" else ""
        theirs = failed.get(row["path"], ("", ""))[0]
        if bad != theirs:
            found.append(f"check says {bad or 'good'} ({row}), extract says {theirs or 'good'}")
    return found


# Running commands.


def perform(command: Command) -> Outcome:
    """Run a command in this process."""
    from click.testing import CliRunner

    from labelgen.cli import main

    if command[0] == "read":
        return read(command)
    guarded = {"check": ("--workers", "0"), "extract": ("--workers", "0")}
    workers = guarded.get(command[0], ())
    done = CliRunner().invoke(main, [*command, *workers])
    raised = ""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raised = "".join(traceback.format_exception(done.exception))
    return Outcome(command, done.exit_code, done.stdout, done.stderr, raised)


def read(command: Command) -> Outcome:
    """Read every clip as the trainer does."""
    import torch

    from labelgen.errors import LabelgenError
    from train.data.dataset import ClipDataset
    from train.data.loader import Loader
    from train.job import PretrainJob
    from train.ranks import Ranks
    from train.recipe import RECIPES

    try:
        job = PretrainJob(command[1], "0", RECIPES["small"])
        data = Ranks().together(job.open_data)
        prepared = Ranks().once(lambda: job.prepare(data))
        dataset = ClipDataset(*job.answers(data, prepared))
        with Loader(dataset, workers=0, device=torch.device("cpu"), skip_bad=True) as loader:
            for _ in loader.read([[(0, int(clip))] for clip in data.train_clips]):
                pass
    except LabelgenError as error:
        return Outcome(command, 2, "", str(error))
    except Exception:
        return Outcome(command, 1, "", "", traceback.format_exc())
    return Outcome(command, 0, "", "")


def serve() -> None:
    """Perform commands that come as lines of JSON, and answer with their outcomes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        outcomes = [perform(tuple(command)) for command in json.loads(line)]
        print(json.dumps(outcomes), file=answers, flush=True)


class Fed:
    """A process that commands are fed to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.inputs = 0

    def perform(self, commands: list[Command]) -> list[Outcome] | None:
        """Return what came of commands; None, and the process is gone, if it died or hung."""
        assert self._process.stdin
        assert self._process.stdout
        self.inputs += 1
        # The first input waits for imports and kernels as well.
        patience = HANG if self.inputs > 1 else 5 * HANG
        watch = threading.Timer(patience, self._process.kill)
        watch.start()
        try:
            self._process.stdin.write(json.dumps(commands) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        finally:
            watch.cancel()
        if not answer:
            self.close()
            return None
        return [Outcome(tuple(command), *rest) for command, *rest in json.loads(answer)]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def as_a_user(command: Command) -> Outcome:
    """Run a command in a process of its own, with workers and patience where it has them."""
    words: dict[str, tuple[str, ...]] = {
        "check": ("--workers", "1", "--patience", "30"),
        "extract": ("--workers", "1", "--video-timeout", "60"),
    }
    program = [sys.executable, "-m", "labelgen.cli", *command, *words.get(command[0], ())]
    if command[0] == "read":
        program = [sys.executable, __file__, "--read", command[1]]
    try:
        done = subprocess.run(
            program, capture_output=True, text=True, timeout=3 * HANG, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(command, -1, "", f"no end after {3 * HANG:.0f} s")
    return Outcome(command, done.returncode, done.stdout, done.stderr)


def examine(kind: str, folder: Path, commands: list[Command], fed: Fed) -> tuple[list[str], bool]:
    """Return what is wrong with how commands take an input, and whether they had to run twice."""
    outcomes = fed.perform(commands)
    if outcomes is not None:
        return complaints(kind, folder, outcomes), False
    if any(command[0] == "extract" for command in commands):
        shutil.rmtree(folder / "shards", ignore_errors=True)
    return complaints(kind, folder, [as_a_user(command) for command in commands]), True


# Seeds.


def find_videos(data: Path, scratch: Path) -> list[tuple[str, bytes]]:
    """Return short real videos, one per kind of file and folder; moving squares where none is."""
    files = [file for file in sorted(data.rglob("*")) if file.suffix in VIDEO_SUFFIXES]
    small = [file for file in files if 0 < file.stat().st_size <= LARGEST]
    by_place = Counter[str]()
    chosen = []
    for file in small:
        origin = file.relative_to(data).parts[0]
        by_place[origin] += 1
        if by_place[origin] <= 4:
            chosen.append(file)
    if not chosen:
        from conftest import moving_square, write_video

        print(f"no videos below {data}; made-up ones are damaged instead", file=sys.stderr)
        chosen = [write_video(scratch / f"{n}.avi", moving_square(n, seed=n)) for n in (40, 60)]
    return [(file.suffix, file.read_bytes()) for file in chosen]


def make_seeds(data: Path, scratch: Path) -> Seeds:
    """Make what is damaged from real videos."""
    import cv2
    import numpy as np
    from conftest import write_frames

    videos = find_videos(data, scratch)
    sources = []
    (scratch / "videos").mkdir()
    for number, (suffix, content) in enumerate(videos[:2]):
        sources.append(scratch / "videos" / f"{number}{suffix}")
        sources[-1].write_bytes(content)
    capture = cv2.VideoCapture(str(sources[0]))
    read = (capture.read()[1] for _ in range(20))
    frames = [cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in read if image is not None]
    write_frames(scratch / "frames" / "v", frames)
    rng = np.random.default_rng(0)
    for letter in "uv":
        levels = [rng.integers(0, 256, (60, 80), np.uint8) for _ in frames[1:]]
        write_frames(scratch / "flow" / letter / "v", levels)
    shards = []
    for number, options in enumerate((("--frames", "raw"), ("--store-flow",), ("--crops", "all"))):
        root = ("--root", str(scratch / "videos"))
        command = (*extract(scratch, out=f"shards{number}"), *root, *options)
        outcome = perform(command)
        assert outcome.code == 0, outcome
        shards.append(scratch / f"shards{number}")
    return Seeds(videos, scratch / "frames", scratch / "flow", shards)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    shared = os.environ.get("LABELGEN_SHARED", Path(__file__).parents[2] / "shared")
    parser.add_argument("--data", type=Path, default=Path(shared, "data"))
    parser.add_argument("--keep", type=Path, default=Path("fuzz"))
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    if options.read:
        outcome = read(("read", options.read))
        print(outcome.raised or outcome.err, file=sys.stderr)
        return outcome.code
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        return feed(options, Path(place))


def feed(options: argparse.Namespace, scratch: Path) -> int:
    """Make inputs until time is up, and report."""
    seeds = make_seeds(options.data, scratch)
    counts, twice, found = Counter[str](), 0, 0
    fed, end, number = Fed(), time.monotonic() + options.seconds, 0
    kinds = options.kind or list(KINDS)
    try:
        while time.monotonic() < end:
            # By number alone, so that one input can be made again.
            rng = random.Random(f"{options.seed} {number}")
            kind = kinds[number % len(kinds)]
            folder = scratch / f"{kind}-{options.seed}-{number}"
            folder.mkdir()
            commands = KINDS[kind](folder, seeds, rng)
            wrong, again = examine(kind, folder, commands, fed)
            counts[kind] += 1
            twice += again
            number += 1
            if wrong:
                found += 1
                keep(folder, commands, wrong, options.keep)
            shutil.rmtree(folder, ignore_errors=True)
            if again or fed.inputs >= INPUTS_PER_PROCESS:
                fed.close()
                fed = Fed()
    finally:
        fed.close()
    kinds_text = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    print(f"{number} inputs ({kinds_text}); {twice} ended or held up the process that was fed")
    print(f"{found} of them found something wrong" + (f"; see {options.keep}" if found else ""))
    return int(found > 0)


def keep(folder: Path, commands: list[Command], wrong: list[str], place: Path) -> None:
    """Keep an input that something was found with."""
    target = place / folder.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    lines = [" ".join(command) for command in commands]
    (target / "found.txt").write_text("\n".join([*lines, "", *wrong, ""]), encoding="utf-8")
    print(f"{folder.name}: {wrong[0].splitlines()[0]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
