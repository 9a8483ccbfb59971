"""What does each loss learn of the 27 labels? Fights by source group, and motion that is known.

    python benchmarks/learning.py --data "$LABELGEN_SHARED/data" --work runs/learning

Each loss trains for as many steps with the same seeds: on the fights, on two splits by source
group, with a linear probe of what came of it; and on made-up clips (benchmarks/known_motion.py).
Then labels from other flow. Run again to go on after a stop; `--report` prints what there is.
The figures of every run stand in `learning.jsonl` beside this file: runs that are there are left
out, with `--records` elsewhere all are done anew.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
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
WIDE = ("--width", "0.25")  # twice the width, and more passes
WIDE_FIGHTS, WIDE_KNOWN = (*WIDE, "--epochs", "6"), (*WIDE, "--epochs", "10")
WIDE_LOSSES = ("mse", "ce-soft", "statistics")
WIDE_RUNS = ((0, 0), (1, 0), (0, 1), (0, 2))  # split and seed
KNOWN_FLOWS = ("true", "tvl1")
PROBE = ("--recipe", "small", "--freeze", "--lr", "0.003", "--epochs", "3", "--val", "0")
PROBED = ("clip top-1", "video top-1")
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


class Records:
    """The figures of every finished run, a line of JSON each; what is there is not done again."""

    def __init__(self, file: Path) -> None:
        self._file = file
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        self._found = {record["run"]: record["figures"] for record in map(json.loads, lines)}

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def of(self, pattern: str) -> list[dict[str, Any]]:
        """Return the figures of all runs of some name."""
        return [self._found[name] for name in fnmatch.filter(sorted(self._found), pattern)]

    def add(self, name: str, figures: dict[str, Any]) -> None:
        """Keep the figures of a run."""
        self._found[name] = figures
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"run": name, "figures": figures}) + "\n")


def learn_fights(
    work: Path,
    records: Records,
    loss: str,
    split: int,
    seed: int,
    *,
    flow: str = "tvl1",
    wide: bool = False,
) -> None:
    """Pre-train on a split; with the usual flow and width, measure a linear probe too."""
    name = _named(f"{flow}-{loss}-split{split}-seed{seed}", wide)
    sets, probed = work / shards_of(split, flow), flow == "tvl1" and not wide
    if name in records and not (probed and f"probe-{name}" not in records):
        return
    start = trained(
        work / "runs" / name, "pretrain", "--labels", sets / "fights-train", "--val",
        sets / "fights-test", "--loss", loss, "--seed", seed, *FIGHTS,
        *(WIDE_FIGHTS if wide else ()),
    )  # fmt: skip
    _record(records, start)
    if probed:
        _probe(work, records, start, split, seed)


def _record(records: Records, run: Path) -> None:
    """Keep the held-out figures by kind of a run's last epoch."""
    if run.name not in records:
        last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
        records.add(run.name, _rounded(last["held_out"]["kinds"]))


def _rounded(figures: Any) -> Any:
    if isinstance(figures, dict):
        return {name: _rounded(value) for name, value in figures.items()}
    return round(figures, 4) if isinstance(figures, float) else figures


def _probe(work: Path, records: Records, start: Path | str, split: int, seed: int) -> None:
    sets, scratch = work / shards_of(split), start == "scratch"
    name = f"random-split{split}-seed{seed}" if scratch else Path(start).name
    if f"probe-{name}" in records:
        return
    probe = trained(
        work / "probes" / name, "finetune", "--labels", sets / "fights-train", "--init", start,
        "--seed", seed, *PROBE, *(RECIPE[2:] if scratch else ()),
    )  # fmt: skip
    out = work / "results" / name
    if not (out / "result.json").exists():
        run("train", "evaluate", probe, "--labels", sets / "fights-test", "--out", out)
    figures = json.loads((out / "result.json").read_text())["figures"]
    accuracies = {figure: figures[figure]["mean"] for figure in PROBED}
    records.add(f"probe-{name}", _rounded(accuracies))


def learn_known(
    work: Path, records: Records, loss: str, flow: str, seed: int, *, wide: bool = False
) -> None:
    sets, name = work / "known" / flow, _named(f"known-{flow}-{loss}-seed{seed}", wide)
    if name not in records:
        known = trained(
            work / "runs" / name, "pretrain", "--labels", sets / "known-train", "--val",
            sets / "known-test", "--loss", loss, "--seed", seed, *KNOWN,
            *(WIDE_KNOWN if wide else ()),
        )  # fmt: skip
        _record(records, known)


def _named(name: str, wide: bool) -> str:
    return f"wide-{name}" if wide else name


def learn(work: Path, records: Records, jobs: int) -> None:
    """Do all runs, the first seed of everything first; one core each."""
    os.environ["OMP_NUM_THREADS"] = "1"
    calls: list[Any] = []
    for loss in reversed(WIDE_LOSSES):
        calls += [joblib.delayed(learn_known)(work, records, loss, "true", 0, wide=True)]
        calls += [
            joblib.delayed(learn_fights)(work, records, loss, split, seed, wide=True)
            for split, seed in WIDE_RUNS
        ]
    for seed in SEEDS:
        for loss in LOSSES:
            calls += [
                joblib.delayed(learn_known)(work, records, loss, flow, seed) for flow in KNOWN_FLOWS
            ]
            calls += [
                joblib.delayed(learn_fights)(work, records, loss, split, seed) for split in SPLITS
            ]
        calls += [joblib.delayed(_probe)(work, records, "scratch", split, seed) for split in SPLITS]
    for flow in list(FLOWS)[1:]:
        calls += [
            joblib.delayed(learn_fights)(work, records, "statistics", 0, s, flow=flow)
            for s in SEEDS
        ]
    joblib.Parallel(jobs, prefer="threads")(calls)


KINDS = {
    "where (motion)": "motion: where",
    "which way": "motion: which way",
    "when": "motion: when",
    "where (colour)": "appearance: where",
    "colour": "appearance: colour",
}


def tables(records: Records) -> Iterator[str]:
    """Yield the tables in Markdown: means over splits and seeds, and standard errors."""
    yield "\nFights, labels from tvl1\n"
    found = {loss: records.of(f"tvl1-{loss}-split*-seed*") for loss in LOSSES}
    yield from _table(found)
    yield "\nFights, labels from tvl1, twice the width, 6 passes\n"
    yield from _table({loss: records.of(f"wide-tvl1-{loss}-split*-seed*") for loss in WIDE_LOSSES})
    yield "\nKnown motion, labels from true flow, twice the width, 10 passes\n"
    yield from _table({loss: records.of(f"wide-known-true-{loss}-seed*") for loss in WIDE_LOSSES})
    yield "\nFights, labels from other flow, statistics on split 0\n"
    yield from _table({flow: records.of(f"{flow}-statistics-split0-seed*") for flow in FLOWS})
    for flow in KNOWN_FLOWS:
        yield f"\nKnown motion, labels from {flow} flow\n"
        yield from _table({loss: records.of(f"known-{flow}-{loss}-seed*") for loss in LOSSES})
    yield "\nLinear probe of the fights, from the epoch of lowest held-out loss\n"
    yield "| start | clip accuracy | video accuracy | runs |\n" + "| --- " * 4 + "|"
    for start in ("random", *(f"tvl1-{loss}" for loss in LOSSES)):
        probes = records.of(f"probe-{start}-split*")
        cells = [_mean([figures[figure] for figures in probes]) for figure in PROBED]
        yield f"| {start} | {' | '.join(cells)} | {len(probes)} |"


def _table(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    yield "| kind | figure | training prior | " + " | ".join(found) + " |"
    yield "| --- " * (3 + len(found)) + "|"
    for title, kind in KINDS.items():
        for figure, prior in (
            ("accuracy", "prior_accuracy"), ("information", None), ("explained_variance", None),
            ("distance", "prior_distance"),
        ):  # fmt: skip
            values = {
                name: [run[kind][figure] for run in runs if kind in run]
                for name, runs in found.items()
            }
            if not any(v is not None for of_name in values.values() for v in of_name):
                continue
            priors = [run[kind][prior] for runs in found.values() for run in runs if prior]
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
    parser.add_argument("--work", type=Path, help="folder for shards and runs")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    parser.add_argument(
        "--records", type=Path, default=Path(__file__).with_suffix(".jsonl"),
        help="figures of finished runs, which are not done again",
    )  # fmt: skip
    parser.add_argument("--report", action="store_true", help="print what there is, and no more")
    options = parser.parse_args()
    records = Records(options.records)
    if not options.report:
        if options.data is None or options.work is None:
            parser.error("--data and --work are needed")
        options.work.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            extract(options.data / "fights", options.work, split, "tvl1")
        for flow in list(FLOWS)[1:]:
            extract(options.data / "fights", options.work, 0, flow)
        script = Path(__file__).parent / "known_motion.py"
        for flow in KNOWN_FLOWS:
            out = options.work / "known" / flow
            run(sys.executable, script, "--data", options.data, "--out", out, "--flow", flow)
        learn(options.work, records, options.jobs)
    print("\n".join(tables(records)))


if __name__ == "__main__":
    main()
