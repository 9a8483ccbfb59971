"""Loading speed in one process against the number of shards, and against views per clip.

    python benchmarks/loader.py [--seconds 20]

The same clips lie in 8 shards and in 800. What is timed is a turn of each way after another, when
all of the first turn is done: files are open then, and pages in memory.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from labelgen.shards.folder import open_run
from labelgen.shards.plan import plan_set
from labelgen.shards.settings import ExtractSettings
from labelgen.shards.writer import Clip, ShardWriter
from labelgen.video.manifest import ManifestRow, rows_digest
from train.bench import batches, loader_of, rate
from train.data.shards import open_shards
from train.recipe import PretrainRecipe

CLIPS = 800
ROUNDS = 5


def random_frames(rng: np.random.Generator) -> np.ndarray:
    """(16, 128, 171, 3) uint8 with detail at several scales: some 13 kB a JPEG, as real video."""
    layers = [cv2.resize(rng.normal(size=(n, n, 3)), (171, 128)) for n in (4, 16, 64)]
    noise = rng.normal(size=(16, 128, 171, 3)) * 11
    return (128 + 25 * sum(layers) + noise).clip(0, 255).astype(np.uint8)


def make_folder(folder: Path, *, shards: int, frames: str) -> None:
    """Write the clips, one of a video each, into some shards."""
    settings = ExtractSettings(boundaries=False, frames=frames, clips_per_shard=CLIPS // shards)
    rows = [ManifestRow(f"{number:05d}.avi", frames=16) for number in range(CLIPS)]
    folder.mkdir(parents=True)
    plans = plan_set(rows, set_name="bench", settings=settings)
    open_run(folder, settings=settings, plans=plans, alone=True)
    rng = np.random.default_rng(0)
    some = [random_frames(rng) for _ in range(20)]
    labels = np.repeat(rng.integers(1, 5, (51, 27)).astype(np.uint8), 20, axis=0)
    for plan in plans:
        digest = rows_digest(plan.rows)
        with ShardWriter(folder / plan.file, settings=settings, manifest_sha256=digest) as writer:
            for row in plan.rows:
                clip = some[int(row.path[:5]) % len(some)]
                writer.add_clip(Clip(0, clip, labels, None, 1.0, None))
                writer.add_video(row, 16)
            writer.seal([])


def clips_read(folder: Path, recipe: PretrainRecipe) -> Callable[[], object]:
    """Return what reads a batch of a folder's clips; every file has been opened by then."""
    shards = open_shards(folder)
    loader = loader_of(shards, recipe=recipe, workers=0, device=torch.device("cpu"))
    loads: Iterator[object] = batches(loader, shards, recipe=recipe)
    for _ in range(CLIPS * recipe.views // recipe.batch):
        next(loads)
    return lambda: next(loads)


def compare(ways: dict[str, Callable[[], object]], *, samples: int, seconds: float) -> None:
    """Time all ways in turns and print the median of each, and its ratio to the first's."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, work in ways.items():
            rates[name].append(rate(work, samples, seconds / ROUNDS))
    first = next(iter(rates.values()))
    for name, values in rates.items():
        ratio = statistics.median(v / f for v, f in zip(values, first, strict=True))
        print(
            f"{name:<24}{statistics.median(values):8.0f} samples/s"
            f"  ({min(values):.0f} to {max(values):.0f})  {ratio:.2f} x",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each way")
    seconds = parser.parse_args().seconds
    recipe = PretrainRecipe(batch=32)
    with tempfile.TemporaryDirectory() as scratch:
        for frames in ("raw", "jpeg:95"):
            folders = {count: Path(scratch, frames, str(count)) for count in (8, 800)}
            for count, folder in folders.items():
                make_folder(folder, shards=count, frames=frames)
            print(f"{frames}, {CLIPS} clips")
            compare(
                {f"{count} shards": clips_read(f, recipe) for count, f in folders.items()},
                samples=recipe.batch,
                seconds=seconds,
            )
            recipes = {count: replace(recipe, views=count) for count in (1, 2, 4, 8)}
            compare(
                {f"8 shards, {k} views": clips_read(folders[8], r) for k, r in recipes.items()},
                samples=recipe.batch,
                seconds=seconds,
            )


if __name__ == "__main__":
    main()
