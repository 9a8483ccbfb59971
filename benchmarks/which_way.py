"""How much of a label can be known? What noise in the flow changes; what a place says of a way.

    python benchmarks/which_way.py runs/learning/fights0-tvl1/fights-test

Reads shards with stored flow (`--store-flow`), computes the motion labels of the central crop from
that flow and from the same flow with smooth noise, and prints for each kind of label how often
both agree, and how much of an orientation's entropy is left when its place is known.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np

import labelgen
from labelgen.labels.crops import crop_positions
from labelgen.shards.reader import open_shard
from train.data.shards import open_shards
from train.values import kind_of

NOISE = (0.02, 0.05, 0.1)  # of the flow's root mean square
SMOOTH = 4.0  # pixels: errors of a solver lie in patches
NAMES = [label.name for label in labelgen.LABELS[:14]]
TOP, LEFT = crop_positions("center")[0]


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


def entropies(labels: np.ndarray, place: int, turn: int) -> tuple[float, float]:
    """Entropy of an orientation in nats, and what is left of it when the place is known."""
    table = np.zeros((17, 9))
    np.add.at(table, (labels[:, place], labels[:, turn]), 1)
    rows = table[table.sum(1) > 0]
    left = sum(row.sum() / len(labels) * entropy(row) for row in rows)
    return entropy(table.sum(0)), left


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
    print("| kind | " + " | ".join(f"agrees at {share:.0%} noise" for share in NOISE) + " |")
    print("| --- " * (1 + len(NOISE)) + "|")
    for kind in ("where", "which way", "when"):
        mine = [i for i, name in enumerate(NAMES) if kind_of(name) == kind]
        cells = [
            f"{(np.array(d)[:, mine] == labels[:, mine]).mean():.2f}" for d in disturbed.values()
        ]
        print(f"| {kind} | " + " | ".join(cells) + " |")
    print("\n| orientation of | entropy, nats | with the place known |\n| --- | --- | --- |")
    for number in range(0, 12, 2):
        whole, left = entropies(labels, number, number + 1)
        print(f"| {NAMES[number + 1]} | {whole:.2f} | {left:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", nargs="+", help="shards with flow, such as shards/known-test")
    for location in parser.parse_args().labels:
        measure(location)


if __name__ == "__main__":
    main()
