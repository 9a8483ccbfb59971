"""Does a network learn the labels? Pre-train on the `fights` videos, held out by source group.

    python benchmarks/learning.py --data "$LABELGEN_SHARED/data/fights" --work runs/learning

Writes two manifests (whole source groups on one side), extracts both with `labelgen extract`,
trains with the recipe for small sets, and leaves the log, the table and the curve in
the work folder. Run again to go on after a stop.
"""

from __future__ import annotations

import argparse
import csv
import random
import subprocess
from pathlib import Path

SHARE_HELD_OUT = 0.2  # of the source groups


def write_manifests(data: Path, work: Path, *, seed: int) -> dict[str, Path]:
    """One manifest per side; groups are dealt whole, so no scene is on both."""
    with open(data / "groups.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    groups = sorted({row["group"] for row in rows})
    random.Random(seed).shuffle(groups)
    held = set(groups[: round(SHARE_HELD_OUT * len(groups))])
    manifests = {side: work / f"fights-{side}.csv" for side in ("train", "val")}
    for side, path in manifests.items():
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "class_name"])
            writer.writerows(
                [row["path"], row["class_name"]]
                for row in rows
                if (row["group"] in held) == (side == "val")
            )
    return manifests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with groups.csv")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--workers", default="2", help="of the extraction")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for side, manifest in write_manifests(options.data, options.work, seed=options.seed).items():
        # Overlapping clips make more of few training videos; held-out ones are counted once.
        stride = "8" if side == "train" else "16"
        run(
            "labelgen", "extract", "--manifest", manifest, "--root", options.data,
            "--out", options.work / side, "--crops", "all", "--clip-stride", stride,
            "--workers", options.workers, "--no-boundaries",
        )  # fmt: skip
    out = options.work / "run"
    run(
        "train", "pretrain", "--labels", options.work / "train", "--val", options.work / "val",
        "--out", out, "--recipe", "small", "--seed", options.seed, "--save-every", 20,
        table=options.work / "table.md",
    )  # fmt: skip
    run("train", "curve", out, "-o", options.work / "curve.png")


def run(*command: object, table: Path | None = None) -> None:
    """Run a command, showing it; keep its table where one is asked for."""
    words = [str(word) for word in command]
    print("$", *words, flush=True)
    done = subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE if table else None)
    if table:
        table.write_text(done.stdout, encoding="utf-8")


if __name__ == "__main__":
    main()
