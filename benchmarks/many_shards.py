"""Time of planning, verifying, inspecting and indexing against the number of shards.

    python benchmarks/many_shards.py [1000 2000 4000]

Shards are tiny, one clip each, so that what is timed is the work per shard.
"""

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from labelgen.labels.crops import crop_positions
from labelgen.shards.folder import open_run
from labelgen.shards.index import write_index
from labelgen.shards.plan import plan_set
from labelgen.shards.settings import ExtractSettings
from labelgen.shards.summary import summary_lines
from labelgen.shards.verify import find_problems
from labelgen.shards.writer import Clip, ShardWriter
from labelgen.video.manifest import ManifestRow, rows_digest

SETTINGS = ExtractSettings(crops="grid:16", boundaries=False, frames="jpeg:50", clips_per_shard=1)


def make_folder(folder, count):
    """Write `count` sealed shards of one random clip each."""
    folder.mkdir()
    rows = [ManifestRow(f"{number}.avi", frames=16) for number in range(count)]
    plans = plan_set(rows, set_name="many", settings=SETTINGS)
    open_run(folder, settings=SETTINGS, plans=plans, alone=True)
    rng = np.random.default_rng(0)
    frames = np.zeros((16, 128, 171, 3), np.uint8)
    crops = len(crop_positions(SETTINGS.crops))
    for plan in plans:
        labels = rng.integers(1, 5, (crops, 27)).astype(np.uint8)
        file = folder / plan.file
        digest = rows_digest(plan.rows)
        with ShardWriter(file, settings=SETTINGS, manifest_sha256=digest) as writer:
            writer.add_clip(Clip(0, frames, labels, None, 1.0, None))
            writer.add_video(plan.rows[0], 16)
            writer.seal([])
    return rows


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def time_ways(folder, count):
    rows = []
    yield seconds(lambda: rows.extend(make_folder(folder, count)))
    plans = partial(plan_set, set_name="many", settings=SETTINGS)
    yield seconds(lambda: open_run(folder, settings=SETTINGS, plans=plans(rows), alone=True))
    yield seconds(lambda: find_problems(folder, workers=2))
    yield seconds(lambda: list(summary_lines(folder, workers=2)))
    yield seconds(lambda: write_index(folder, folder / "all.h5"))


def main(*counts):
    names = ("shards", "make", "plan", "verify", "inspect", "index")
    print(*(f"{name:>8}" for name in names), " seconds")
    for count in map(int, counts or ("1000", "2000", "4000")):
        with tempfile.TemporaryDirectory() as scratch:
            took = time_ways(Path(scratch, "shards"), count)
            print(f"{count:>8}", *(f"{value:8.2f}" for value in took), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
