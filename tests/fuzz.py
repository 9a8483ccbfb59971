"""Feed damaged input to every command that reads some, for so long, and stop at the first surprise.

    python tests/fuzz.py --data FOLDER_OF_VIDEOS [--seconds 600] [--seed N]

Videos, folders of frames, flow, manifests and shards are made of real ones by changing bytes, names
and lengths, and go through `labelgen check`, `extract`, `verify` and the trainer's reader. A
surprise is a traceback, a signal, a command that does not end, an error that is not one sentence,
or damage that nobody notices. The folder of the round that surprised is kept, and its seed said.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import h5py

PATIENCE = 300  # seconds for a command that takes a few
LARGEST = 1_500_000  # bytes of a video to begin with
INPUTS = 12  # in a round
ENCODED = 20  # frames in a folder
CHEAP = ("--no-labels", "--frames", "jpeg:50", "--clip-stride", "48")
LABELLED = ("--flow", "dis", "--crops", "grid:16", "--frames", "jpeg:50", "--clips-per-shard", "2")
# Verdicts of processes that died, which depend on how much of a video was asked for.
DIED = ("crashed", "timed_out")
NAMES = ("x.jpg", f"frame{'9' * 25}.jpg", "img_0003.jpg", "-1.png")
CELLS = (
    *("", "..", "/etc/passwd", "a\0b", "\u00e9\u2028", '"', "=1", "-1", "1e9", "9" * 30),
    *("nan", "x" * 300),
)


class SurpriseError(Exception):
    """Something that must not happen."""


def run(*words: object, codes: tuple[int, ...]) -> subprocess.CompletedProcess[str]:
    """Run a command of labelgen; raise if it ends in a way that it may not."""
    command = [sys.executable, "-m", "labelgen.cli", *map(str, words)]
    return finished(command, codes)


def finished(command: list[str], codes: tuple[int, ...]) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise SurpriseError(f"no end after {PATIENCE} s: {command}") from None
    told = done.returncode != 2 or done.stderr.strip().splitlines()[-1].startswith("Error: ")
    if done.returncode not in codes or "Traceback" in done.stderr or not told:
        raise SurpriseError(f"exit code {done.returncode} of {command}:\n{done.stderr}")
    return done


# Changes of bytes. Each takes and gives a bytearray.


def flip(content: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 2, 8, 64))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def flip_head(content: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 2, 8))):
        content[rng.randrange(min(len(content), 2048))] = rng.choice((0, 1, 127, 128, 255))
    return content


def blank(content: bytearray, rng: random.Random) -> bytearray:
    first = rng.randrange(len(content))
    length = min(rng.choice((4, 64, 4096)), len(content) - first)
    content[first : first + length] = bytes([rng.choice((0, 255))]) * length
    return content


def cut(content: bytearray, rng: random.Random) -> bytearray:
    return content[: rng.randrange(len(content))]


def insert(content: bytearray, rng: random.Random) -> bytearray:
    place = rng.randrange(len(content))
    return content[:place] + rng.randbytes(rng.choice((1, 100, 5000))) + content[place:]


def repeat(content: bytearray, rng: random.Random) -> bytearray:
    first, last = sorted(rng.randrange(len(content)) for _ in range(2))
    return content[:last] + content[first:]


def drop(content: bytearray, rng: random.Random) -> bytearray:
    first, last = sorted(rng.randrange(len(content)) for _ in range(2))
    return content[:first] + content[last:]


CHANGES: tuple[Callable[[bytearray, random.Random], bytearray], ...]
CHANGES = (flip, flip, flip_head, flip_head, blank, cut, insert, repeat, drop)


def spoil(file: Path, rng: random.Random) -> None:
    """Change the bytes of a file, for sure."""
    before = file.read_bytes()
    content = bytearray(before)
    while bytes(content) == before:
        for _ in range(rng.choice((1, 1, 1, 3))):
            content = rng.choice(CHANGES)(content or bytearray(b"\0"), rng)
    # What was linked or copied from elsewhere keeps its own bytes.
    file.unlink()
    file.write_bytes(content)


# Rounds. Each makes inputs in an empty folder, feeds them, and returns how many there were.


class Rounds:
    """What can be fed, and to whom.

    Parameters
    ----------
    data : Path
        Folder of real videos.
    home : Path
        For what is made once.
    """

    def __init__(self, data: Path, home: Path) -> None:
        suffixes = (".avi", ".mp4", ".mkv")
        files = sorted(file for file in data.rglob("*") if file.suffix in suffixes)
        self.sources = [file for file in files if file.stat().st_size <= LARGEST]
        if not self.sources:
            sys.exit(f"no video of up to {LARGEST} bytes below {data}")
        self.home = home
        self._make_frames()
        self._make_shards()

    def _make_frames(self) -> None:
        """Write a few real videos as folders of frames, and flow of them that was never true."""
        for number, source in enumerate(self.sources[:: max(len(self.sources) // 3, 1)][:3]):
            folder = self.home / "frames" / f"v{number}"
            folder.mkdir(parents=True)
            capture = cv2.VideoCapture(str(source))
            for index in range(1, ENCODED + 1):
                found, frame = capture.read()
                if not found:
                    break
                small = cv2.resize(frame, (160, 120))
                cv2.imwrite(str(folder / f"frame{index:06d}.jpg"), small)
                grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
                for part in "uv":
                    of_flow = self.home / "flow" / part / folder.name
                    of_flow.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(of_flow / f"frame{index:06d}.jpg"), grey)

    def _make_shards(self) -> None:
        root = self.home / "frames"
        for kind, options in (("jpeg", ()), ("raw", ("--frames", "raw", "--store-flow"))):
            out = self.home / "shards" / kind
            words = ("--frames-from", root, "--out", out, *LABELLED, *options)
            run("extract", *words, codes=(0,))

    def videos(self, folder: Path, rng: random.Random) -> int:
        """Spoil videos: `check` and `extract` agree on them, and what is made is whole."""
        root = folder / "videos"
        root.mkdir()
        for number, source in enumerate(rng.choices(self.sources, k=INPUTS)):
            file = Path(shutil.copy(source, root / f"{number:02d}{source.suffix}"))
            spoil(file, rng)
        listed = run("check", "--root", root, "--workers", 2, codes=(0, 1)).stdout
        seen = {row["path"]: row for row in csv.DictReader(listed.splitlines())}
        failed = self.extracted("--root", root, folder=folder, options=CHEAP)
        for path in sorted(file.name for file in root.iterdir()):
            words = seen[path]["reason"] if seen[path]["verdict"] == "bad" else ""
            reason = failed.get(path, "")
            agree = words.startswith(reason) and bool(words) == bool(reason)
            if not agree and not {reason, words.partition(":")[0]} & set(DIED):
                raise SurpriseError(f"{path}: check says {words!r}, extract {reason!r}")
        return INPUTS

    def extracted(self, *words: object, folder: Path, options: tuple[str, ...]) -> dict[str, str]:
        """Extract, and verify what was made; return why videos failed, the others being there."""
        out = folder / "shards"
        where = ("--out", out, "--workers", "2", "--video-timeout", "60")
        run("extract", *words, *where, *options, codes=(0, 1))
        run("verify", out, codes=(0,))
        with (out / "failures.csv").open(encoding="utf-8", newline="") as stream:
            failed = {row["path"].lstrip("'"): row["reason"] for row in csv.DictReader(stream)}
        made = set()
        for file in out.glob("*.h5"):
            with h5py.File(file) as shard:
                made |= set(shard["videos/path"].asstr()[:])
        (rows,) = out.glob("*.rows.csv")
        with rows.open(encoding="utf-8", newline="") as stream:
            lost = {row["path"] for row in csv.DictReader(stream)} - made - failed.keys()
        if lost:
            raise SurpriseError(f"{sorted(lost)} are in no shard and have not failed")
        return failed

    def frames(self, folder: Path, rng: random.Random) -> int:
        """Spoil images and names in folders of frames."""
        root = folder / "frames"
        for number in range(INPUTS):
            self._copy_spoilt(self.home / "frames", root / str(number), rng)
        self.extracted("--frames-from", root, folder=folder, options=CHEAP)
        return INPUTS

    def flow(self, folder: Path, rng: random.Random) -> int:
        """Spoil images and names in folders of flow."""
        root, flow = folder / "frames", folder / "flow"
        for number in range(INPUTS):
            name = f"v{number % 3}"
            shutil.copytree(self.home / "frames" / name, root / f"{number:02d}")
            for part in "uv":
                place = flow / part / f"{number:02d}"
                shutil.copytree(self.home / "flow" / part / name, place)
                if rng.random() < 0.7:
                    self._spoil_folder(place, rng)
        options = ("--flow", "precomputed", "--flow-root", str(flow), "--crops", "center")
        self.extracted("--frames-from", root, folder=folder, options=options)
        return INPUTS

    def _copy_spoilt(self, source: Path, target: Path, rng: random.Random) -> None:
        videos = sorted(path for path in source.iterdir() if path.is_dir())
        shutil.copytree(rng.choice(videos), target)
        self._spoil_folder(target, rng)

    def _spoil_folder(self, folder: Path, rng: random.Random) -> None:
        for file in rng.sample(sorted(folder.iterdir()), rng.choice((1, 1, 4))):
            kind = rng.randrange(7)
            if kind < 3:
                spoil(file, rng)
            elif kind == 3:
                file.unlink()
            elif kind == 4:
                other = rng.choice(NAMES)
                file.rename(folder / other)
            elif kind == 5:
                file.unlink()
                file.mkdir()
            else:
                image = cv2.resize(cv2.imread(str(file)), rng.choice(((1, 1), (7, 300))))
                cv2.imwrite(str(file), image)

    def manifests(self, folder: Path, rng: random.Random) -> int:
        """Spoil a manifest, by bytes or cell by cell."""
        root = folder / "videos"
        root.mkdir()
        for number, source in enumerate(self.sources[:4]):
            shutil.copy(source, root / f"{number}{source.suffix}")
        names = sorted(file.name for file in root.iterdir())
        for number in range(INPUTS // 4):
            file = folder / f"m{number}.csv"
            rows = [["path", "class_name", "class_index", "split", "frames"]]
            rows += [[name, "c", "0", "train", "32"] for name in names]
            for _ in range(rng.choice((0, 1, 3))):
                rng.choice(rows)[rng.randrange(5)] = rng.choice(CELLS)
            with file.open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream).writerows(rows)
            if rng.random() < 0.5:
                spoil(file, rng)
            words = ("--manifest", file, "--root", root)
            run("check", *words, codes=(0, 1, 2))
            out = folder / f"shards{number}"
            code = run("extract", *words, "--out", out, *CHEAP, codes=(0, 1, 2)).returncode
            if code < 2:
                run("verify", out, codes=(0,))
        return INPUTS // 4

    def shards(self, folder: Path, rng: random.Random) -> int:
        """Spoil a file of a shard folder: `verify` sees it, and the trainer's reader lives."""
        places, spoilt = [], []
        for number in range(INPUTS):
            source = self.home / "shards" / rng.choice(("jpeg", "raw"))
            place = Path(shutil.copytree(source, folder / f"{number:02d}"))
            file = rng.choice(sorted(place.glob("*.h5")) * 3 + sorted(place.glob("*.json")))
            spoil(file, rng)
            if rng.random() < 0.2 and file.suffix == ".h5":
                file.unlink()
            places.append(place)
            spoilt.append(file)
        program = [sys.executable, __file__, "--read", *map(str, places)]
        said = finished(program, (0,)).stdout
        found = {line["folder"]: line for line in map(json.loads, said.splitlines())}
        for place, file in zip(places, spoilt, strict=True):
            if not found[str(place)]["problems"] and not harmless(file, self.home / "shards"):
                raise SurpriseError(f"nobody noticed that {file} was changed")
        return INPUTS


def harmless(file: Path, sources: Path) -> bool:
    """Whether a change of a JSON file left its meaning alone, or of the run record what counts."""
    if file.suffix != ".json":
        return False
    if file.name == "run.json":
        # What no file depends on, such as a version, can be vouched for by nothing.
        return True
    try:
        now = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return False
    originals = [json.loads(path.read_text()) for path in sources.glob(f"*/{file.name}")]
    # Failures are what a seal alone knows; and more than is asked for may stand in one.
    return any(
        all(now.get(key) == value for key, value in original.items() if key != "failures")
        for original in originals
    )


def read_all(folders: list[str]) -> Iterator[dict[str, object]]:
    """Verify folders of shards, and read every clip of those that the trainer opens."""
    from labelgen.errors import LabelgenError
    from labelgen.shards.status import read_status
    from labelgen.shards.verify import find_problems
    from train.data.answers import LabelAnswers
    from train.data.dataset import ClipDataset
    from train.data.shards import open_shards

    for folder in folders:
        print(folder, file=sys.stderr, flush=True)
        try:
            problems = find_problems(Path(folder))[1]
            read_status(Path(folder))
        except LabelgenError as error:
            problems = [str(error)]
        try:
            shards = open_shards(folder)
            dataset = ClipDataset(LabelAnswers(shards))
            wrong = [dataset[0, clip].wrong for clip in range(shards.clips)]
            outcome = f"{sum(map(bool, wrong))} of {shards.clips} clips cannot be read"
        # An item raises the last two where its shard cannot be opened, as its docstring says.
        except (LabelgenError, OSError) as error:
            outcome = str(error)
        yield {"folder": folder, "problems": problems, "trainer": outcome}


def main(data: Path, seconds: float, seed: int) -> None:
    print(f"seed {seed}", flush=True)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as home:
        rounds = Rounds(data, Path(home))
        kinds = ("videos", "frames", "flow", "manifests", "shards")
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            kind = kinds[number % len(kinds)]
            folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{kind}-"))
            rng = random.Random(f"{seed} {number}")
            try:
                counts[kind] += getattr(rounds, kind)(folder, rng)
            except SurpriseError as surprise:
                sys.exit(f"round {number} ({kind}) of seed {seed}, kept in {folder}: {surprise}")
            shutil.rmtree(folder)
            number += 1
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    print(f"{sum(counts.values())} inputs and no surprise: {told}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--read", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        for line in read_all(arguments.read):
            print(json.dumps(line), flush=True)
    else:
        main(arguments.data, arguments.seconds, arguments.seed)
