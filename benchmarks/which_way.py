"""How much of a label can be known? What noise in the flow changes; what a place says of a way.

    python benchmarks/which_way.py runs/learning/fights0-tvl1/fights-test
    python benchmarks/which_way.py runs/learning/known/true/known-test --run RUN

Reads shards with stored flow (`--store-flow`), computes the motion labels of the central crop from
that flow and from the same flow with smooth noise, and prints for each kind of label how often
both agree, and how much of an orientation's entropy is left when its place is known; beside it what
is left when places are shuffled among clips, since few clips make any table look telling. With a
run of `train pretrain` instead: how often it tells each kind, by how far the winner is ahead of the
next, and orientations by whether it has told the place; it must have learnt all labels of motion.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

import labelgen
from labelgen.labels.partitions import blocks_of
from labelgen.shards.reader import open_shard
from train.checkpoint import load
from train.data.answers import LabelAnswers
from train.data.dataset import ClipDataset
from train.data.loader import Batch
from train.data.sampler import HELD_OUT
from train.data.shards import FIELDS, open_shards
from train.recipe import PretrainRecipe
from train.tasks.pretrain import Pretraining
from train.tasks.statistics import CropStatistics
from train.values import kind_of

NOISE = (0.0001, 0.02, 0.05, 0.1)  # of the flow's root mean square
SHUFFLES = 100
SMOOTH = 4.0  # pixels: errors of a solver lie in patches
NAMES = [label.name for label in labelgen.LABELS[:14]]


def noisy(flow: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(0, 1, flow.shape).astype(np.float32)
    for field in noise.reshape(-1, *flow.shape[2:]):
        cv2.GaussianBlur(field, (0, 0), SMOOTH, dst=field)
    size = share * np.sqrt((flow**2).mean()) / noise.std()
    return flow + size * noise


def labels_of(flow: np.ndarray) -> np.ndarray:
    frames = np.zeros((16, 128, 171, 3), np.uint8)  # no matter for labels of motion
    return labelgen.clip_labels(frames, flow, "center")[0, :14]


def entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def left(places: np.ndarray, turns: np.ndarray) -> float:
    """Entropy of orientations in nats that is left when places are known."""
    table = np.zeros((17, 9))
    np.add.at(table, (places, turns), 1)
    rows = table[table.sum(1) > 0]
    return float(sum(row.sum() / len(turns) * entropy(row) for row in rows))


def measure(location: str) -> None:
    rng = np.random.default_rng(0)
    shards = open_shards(location)
    plain, disturbed = [], {share: [] for share in NOISE}
    for shard in shards.shards:
        with open_shard(shard.path) as file:
            for row in range(shard.clips):
                flow = file["flow"][row].astype(np.float32)
                plain.append(labels_of(flow))
                for share in NOISE:
                    disturbed[share].append(labels_of(noisy(flow, share, rng)))
    labels = np.array(plain)
    print(f"\n{location}: {len(labels)} clips, central crop\n")
    print("| kind | " + " | ".join(f"agrees at {100 * share:g}% noise" for share in NOISE) + " |")
    print("| --- " * (1 + len(NOISE)) + "|")
    for kind in ("where", "which way", "when"):
        mine = [i for i, name in enumerate(NAMES) if kind_of(name) == kind]
        cells = [
            f"{(np.array(d)[:, mine] == labels[:, mine]).mean():.2f}" for d in disturbed.values()
        ]
        print(f"| {kind} | " + " | ".join(cells) + " |")
    print("\n| orientation of | entropy, nats | with the place known | with places shuffled |")
    print("| --- " * 4 + "|")
    for number in range(0, 12, 2):
        places, turns = labels[:, number], labels[:, number + 1]
        shuffled = [left(rng.permutation(places), turns) for _ in range(SHUFFLES)]
        cells = entropy(np.bincount(turns)), left(places, turns), np.mean(shuffled)
        print(f"| {NAMES[number + 1]} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")


def measure_run(location: str, run: Path) -> None:
    """Print accuracy of each kind by thirds of the margin, and of orientations by the place's."""
    content = load(run / "last.pt")
    recipe = replace(PretrainRecipe.from_dict(content["recipe"]), drop_still=0.0)
    cpu = torch.device("cpu")
    task = Pretraining(recipe, known=content["prepared"], device=cpu)
    task.net.load_state_dict(content["model"])
    task.net.eval()
    shards = open_shards(location)
    dataset = ClipDataset(LabelAnswers(shards, fields=FIELDS))
    statistics = CropStatistics(cpu)
    margins, told = [], []
    for first in range(0, shards.clips, 16):
        items = [dataset[HELD_OUT, clip] for clip in range(first, min(first + 16, shards.clips))]
        parts = (torch.cat([getattr(i, name) for i in items]) for name in BATCH)
        batch = Batch(*parts, [])
        with torch.no_grad():
            targets = task.targets(batch)
            said = task._loss.read(task.net(batch.frames), targets)
        motion, pairs = statistics.motion(batch.fields), statistics.pairs(batch.fields)
        margins += [margins_of(*clip) for clip in zip(targets.labels, motion, pairs, strict=True)]
        told += (said.value == targets.labels)[:, : len(NAMES)].tolist()
    print_by_margin(f"{run} on {location}", np.array(margins), np.array(told))


BATCH = ("frames", "answers", "fields")


def margins_of(labels: torch.Tensor, motion: torch.Tensor, pairs: torch.Tensor) -> list[float]:
    """Return by which share the winner is ahead of the next, of each of the 14 labels of motion.

    No number where nothing moves.
    """
    margins = []
    for number, name in enumerate(NAMES):
        _, partition, what = name.split("/")
        component = int(what[0] == "v")
        if partition == "global":
            values = pairs[component]
        else:
            blocks = motion[component, blocks_of(partition)]
            of_place = number % 2 == 0
            values = blocks.sum(1) if of_place else blocks[int(labels[number - 1]) - 1]
        second, first = values.sort().values[-2:].tolist()
        margins.append(1 - second / first if first else np.nan)
    return margins


def print_by_margin(title: str, margins: np.ndarray, told: np.ndarray) -> None:
    moving = ~np.isnan(margins)
    print(f"\n{title}\n\n| kind | labels | told | closest third | middle third | clearest third |")
    print("| --- " * 6 + "|")
    for kind in ("where", "which way", "when"):
        mine = [i for i, name in enumerate(NAMES) if kind_of(name) == kind]
        of_kind, right = margins[:, mine][moving[:, mine]], told[:, mine][moving[:, mine]]
        third = np.digitize(of_kind, np.quantile(of_kind, (1 / 3, 2 / 3)))
        cells = [right.mean(), *(right[third == k].mean() for k in range(3))]
        print(f"| {kind} | {right.size} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    places, ways = (told[:, first:12:2][moving[:, 1:12:2]] for first in (0, 1))
    for words, chosen in (("is", places), ("is not", ~places)):
        cell = f"{chosen.sum()} | {ways[chosen].mean():.3f}"
        print(f"| which way, where the place {words} told | {cell} | | | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", nargs="+", help="shards with flow, such as shards/known-test")
    parser.add_argument("--run", type=Path, help="measure a run of `train pretrain` on them")
    options = parser.parse_args()
    for location in options.labels:
        if options.run:
            measure_run(location, options.run)
        else:
            measure(location)


if __name__ == "__main__":
    main()
