"""What does each loss learn of the 27 labels? Fights by source group, and motion that is known.

    python benchmarks/learning.py --data "$LABELGEN_SHARED/data" --work runs/learning

Each loss trains for as many steps with the same seeds: on the fights, on two splits by source
group, with a linear probe of what came of it; and on made-up clips (benchmarks/known_motion.py).
Then labels from other flow. Run again to go on after a stop; `--report` prints what there is.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
from transfer import run, trained

LOSSES = ("mse", "ce", "ce-soft", "statistics")
SPLITS, SEEDS = (0, 1), (0, 1, 2)
SHARE_TEST, VALIDATED = 0.25, 3  # of the source groups; groups to choose settings by
RECIPE = ("--recipe", "small", "--width", "0.125")
FIGHTS = (*RECIPE, "--epochs", "3")
KNOWN = (*RECIPE, "--epochs", "3", "--tasks", "motion")
WIDE = ("--width", "0.25", "--epochs", "6")  # twice the width, twice the passes: first seed alone
WIDE_LOSSES = ("mse", "ce-soft", "statistics")
KNOWN_FLOWS = ("true", "tvl1")
PROBE = ("--recipe", "small", "--freeze", "--lr", "0.003", "--epochs", "3", "--val", "0")
FLOWS = {
    "tvl1": ("tvl1", "clip"),
    "tvl1:fast": ("tvl1:fast", "clip"),
    "brox": ("brox", "clip"),
    "tvl1 at short side 256": ("tvl1", "short:256"),
}


def write_manifest(data: Path, work: Path, split: int) -> Path:
    """Deal whole source groups to test, validation and training, by the split's number."""
    with open(data / "groups.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    groups = sorted({row["group"] for row in rows})
    random.Random(split).shuffle(groups)
    tested = round(SHARE_TEST * len(groups))
    side = dict.fromkeys(groups[:tested], "test")
    side |= dict.fromkeys(groups[tested : tested + VALIDATED], "val")
    manifest = work / f"split{split}.csv"
    with open(manifest, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "class_name", "split"])
        for row in rows:
            writer.writerow([row["path"], row["class_name"], side.get(row["group"], "train")])
    return manifest


def extract(data: Path, work: Path, split: int, flow: str) -> None:
    method, size = FLOWS[flow]
    run(
        "labelgen", "extract", "--manifest", write_manifest(data, work, split), "--root", data,
        "--out", work / shards_of(split, flow), "--name", "fights", "--clip-stride", "8",
        "--flow", method, "--flow-size", size, "--store-flow",
    )  # fmt: skip


def shards_of(split: int, flow: str = "tvl1") -> str:
    return f"fights{split}-{flow.replace(' ', '-').replace(':', '-')}"


def learn_fights(
    work: Path, loss: str, split: int, seed: int, *, flow: str = "tvl1", wide: bool = False
) -> None:
    """Pre-train on a split; with the usual flow and width, measure a linear probe too."""
    sets, name = work / shards_of(split, flow), f"{flow}-{loss}-split{split}-seed{seed}"
    start = trained(
        work / "runs" / _named(name, wide), "pretrain", "--labels", sets / "fights-train", "--val",
        sets / "fights-test", "--loss", loss, "--seed", seed, *FIGHTS, *(WIDE if wide else ()),
    )  # fmt: skip
    if flow == "tvl1" and not wide:
        _probe(work, start, split, seed)


def _probe(work: Path, start: Path | str, split: int, seed: int) -> None:
    sets, scratch = work / shards_of(split), start == "scratch"
    name = f"random-split{split}-seed{seed}" if scratch else Path(start).name
    probe = trained(
        work / "probes" / name, "finetune", "--labels", sets / "fights-train", "--init", start,
        "--seed", seed, *PROBE, *(RECIPE[2:] if scratch else ()),
    )  # fmt: skip
    out = work / "results" / name
    if not (out / "result.json").exists():
        run("train", "evaluate", probe, "--labels", sets / "fights-test", "--out", out)


def learn_known(work: Path, loss: str, flow: str, seed: int, *, wide: bool = False) -> None:
    sets, name = work / "known" / flow, f"known-{flow}-{loss}-seed{seed}"
    trained(
        work / "runs" / _named(name, wide), "pretrain", "--labels", sets / "known-train", "--val",
        sets / "known-test", "--loss", loss, "--seed", seed, *KNOWN, *(WIDE if wide else ()),
    )  # fmt: skip


def _named(name: str, wide: bool) -> str:
    return f"wide-{name}" if wide else name


def learn(work: Path, jobs: int) -> None:
    """Do all runs, the first seed of everything first; one core each."""
    os.environ["OMP_NUM_THREADS"] = "1"
    calls: list[Any] = []
    for loss in reversed(WIDE_LOSSES):
        calls += [joblib.delayed(learn_known)(work, loss, "true", 0, wide=True)]
        calls += [joblib.delayed(learn_fights)(work, loss, s, 0, wide=True) for s in SPLITS]
    for seed in SEEDS:
        for loss in LOSSES:
            calls += [joblib.delayed(learn_known)(work, loss, flow, seed) for flow in KNOWN_FLOWS]
            calls += [joblib.delayed(learn_fights)(work, loss, split, seed) for split in SPLITS]
        calls += [joblib.delayed(_probe)(work, "scratch", split, seed) for split in SPLITS]
    for flow in list(FLOWS)[1:]:
        calls += [joblib.delayed(learn_fights)(work, "ce-soft", 0, s, flow=flow) for s in SEEDS]
    joblib.Parallel(jobs, prefer="threads")(calls)


KINDS = {
    "where (motion)": "motion: where",
    "which way": "motion: which way",
    "when": "motion: when",
    "where (colour)": "appearance: where",
    "colour": "appearance: colour",
}


def tables(work: Path) -> Iterator[str]:
    """Yield the tables in Markdown: means over splits and seeds, and standard errors."""
    yield "\nFights, labels from tvl1\n"
    found = {loss: _last(work, f"tvl1-{loss}-split*-seed*") for loss in LOSSES}
    yield from _table(found)
    yield "\nFights, labels from tvl1, twice the width and twice the passes\n"
    yield from _table({loss: _last(work, f"wide-tvl1-{loss}-split*-seed*") for loss in WIDE_LOSSES})
    yield "\nKnown motion, labels from true flow, twice the width and twice the passes\n"
    yield from _table({loss: _last(work, f"wide-known-true-{loss}-seed*") for loss in WIDE_LOSSES})
    yield "\nFights, labels from other flow, ce-soft on split 0\n"
    yield from _table({flow: _last(work, f"{flow}-ce-soft-split0-seed*") for flow in FLOWS})
    for flow in KNOWN_FLOWS:
        yield f"\nKnown motion, labels from {flow} flow\n"
        yield from _table({loss: _last(work, f"known-{flow}-{loss}-seed*") for loss in LOSSES})
    yield "\nLinear probe of the fights, clip and video accuracy\n"
    for start in ("random", *(f"tvl1-{loss}" for loss in LOSSES)):
        results = [
            json.loads(path.read_text())["figures"]
            for path in sorted((work / "results").glob(f"{start}-split*/result.json"))
        ]
        cells = [
            _mean([result[figure]["mean"] for result in results])
            for figure in ("clip top-1", "video top-1")
        ]
        yield f"| {start} | {' | '.join(cells)} | {len(results)} |"


def _last(work: Path, pattern: str) -> list[dict[str, Any]]:
    """Return held-out figures of the last epoch of all finished runs of some name."""
    logs = sorted((work / "runs").glob(f"{pattern}/log.jsonl"))
    done = [
        log for log in logs if json.loads((log.parent / "state.json").read_text())["state"] == 0
    ]
    return [json.loads(log.read_text().splitlines()[-1])["held_out"] for log in done]


def _table(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    yield "| kind | figure | training prior | " + " | ".join(found) + " |"
    yield "| --- " * (3 + len(found)) + "|"
    for title, kind in KINDS.items():
        for figure, prior in (
            ("accuracy", "prior_accuracy"), ("information", None), ("explained_variance", None),
            ("distance", "prior_distance"),
        ):  # fmt: skip
            values = {
                name: [run["kinds"][kind][figure] for run in runs if kind in run["kinds"]]
                for name, runs in found.items()
            }
            if not any(v is not None for of_name in values.values() for v in of_name):
                continue
            priors = [r["kinds"][kind][prior] for runs in found.values() for r in runs if prior]
            cells = [_mean(of_name) for of_name in values.values()]
            yield f"| {title} | {figure} | {_mean(priors, error=False)} | {' | '.join(cells)} |"
    yield "| | runs | | " + " | ".join(str(len(runs)) for runs in found.values()) + " |"


def _mean(values: list[float | None], *, error: bool = True) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.fmean(known):.3f}"
    if not error or len(known) < 2:
        return mean
    return f"{mean} ± {statistics.stdev(known) / math.sqrt(len(known)):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with fights and other videos")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    parser.add_argument("--report", action="store_true", help="print what there is, and no more")
    options = parser.parse_args()
    if not options.report:
        if options.data is None:
            parser.error("--data is needed")
        options.work.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            extract(options.data / "fights", options.work, split, "tvl1")
        for flow in list(FLOWS)[1:]:
            extract(options.data / "fights", options.work, 0, flow)
        script = Path(__file__).parent / "known_motion.py"
        for flow in KNOWN_FLOWS:
            out = options.work / "known" / flow
            run(sys.executable, script, "--data", options.data, "--out", out, "--flow", flow)
        learn(options.work, options.jobs)
    print("\n".join(tables(options.work)))


if __name__ == "__main__":
    main()
