"""What is pre-training worth? Fights by source group, Weizmann by person, at a small width.

    python benchmarks/transfer.py --data "$LABELGEN_SHARED/data" --work runs/transfer

For each of 3 splits by source group and 3 seeds: pre-training on the training groups and on the
other videos, with the labels of appearance, of motion and of both; then a linear probe and
fine-tuning on the training groups, with equal schedules, beside random weights and training from
scratch; and retrieval and scene-style recognition by the features. Nothing is chosen by what the
test groups say. Run again to go on after a stop; `--report` prints what there is so far.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHARE_TEST = 0.25  # of the source groups
SPLITS, SEEDS = range(3), range(3)
TASKS = {"appearance": "appearance", "motion": "motion", "joint": "motion,appearance"}
OTHERS = ("ucf101", "hmdb51", "kinetics", "gestures", "misc")
NETWORK = ("--recipe", "small", "--width", "0.125")
PRETRAIN = (*NETWORK, "--schedule", "step", "--lr", "0.01", "--epochs", "3", "--lr-every", "2")
FINETUNE = ("--recipe", "small", "--epochs", "4", "--lr-every", "3", "--val", "0")
PROBE = ("--freeze", "--lr", "0.003")


def link_groups(data: Path, work: Path, name: str) -> list[dict[str, str]]:
    """Link a dataset so that each path begins with its group; return its rows."""
    with open(data / name / "groups.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        source = (data / name / row["path"]).resolve()
        row["path"] = f"{name}/group{row['group']}/{row['path']}"
        place = work / "videos" / row["path"]
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.symlink_to(source)
    return rows


def link_others(data: Path, work: Path) -> list[dict[str, str]]:
    """Link the videos of all other datasets; return their rows, without classes."""
    rows = []
    for name in OTHERS:
        for source in sorted((data / name).rglob("*")):
            if source.suffix in (".avi", ".mp4", ".mkv"):
                path = f"others/{name}/{source.name}"
                place = work / "videos" / path
                place.parent.mkdir(parents=True, exist_ok=True)
                if not place.exists():
                    place.symlink_to(source.resolve())
                rows.append({"path": path, "class_name": ""})
    return rows


def divided(rows: list[dict[str, str]], split: int) -> tuple[list[Any], list[Any]]:
    """Training and test rows: a quarter of the groups, drawn by the split, are tested."""
    groups = sorted({row["group"] for row in rows}, key=int)
    random.Random(split).shuffle(groups)
    test = set(groups[: round(SHARE_TEST * len(groups))])
    return [r for r in rows if r["group"] not in test], [r for r in rows if r["group"] in test]


def extract(rows: list[dict[str, str]], work: Path, out: str, *options: str) -> Path:
    """Make the shards of some rows."""
    folder = work / "shards" / out
    manifest = work / "manifests" / f"{out}.csv"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    with open(manifest, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "class_name"])
        writer.writerows([row["path"], row["class_name"]] for row in rows)
    run(
        "labelgen", "extract", "--manifest", manifest, "--root", work / "videos", "--out", folder,
        "--workers", "2", *options,
    )  # fmt: skip
    return folder


def once(done: Path, *command: object) -> None:
    """Run a command whose result is not there yet; one that was stopped goes on."""
    if not done.exists():
        run(*command)


def run(*command: object) -> None:
    """Run a command, showing it."""
    words = [str(word) for word in command]
    print("$", *words, flush=True)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def trained(out: Path, *command: object) -> Path:
    """Train into a folder; a run that is finished is left alone."""
    state = out / "state.json"
    if not state.exists() or json.loads(state.read_text())["state"] != 0:
        run("train", *command, "--out", out)
    return out


def measure(work: Path) -> None:
    """Run all of it, seed by seed."""
    shards, runs, results = work / "shards", work / "runs", work / "results"
    for seed in SEEDS:
        for split in SPLITS:
            name, where = f"split{split}-seed{seed}", (split, seed)
            train, test = shards / f"train{split}", shards / f"test{split}"
            starts = {"random": "scratch"}
            for task, labels in TASKS.items():
                starts[task] = trained(
                    runs / f"{task}-{name}", "pretrain", "--labels", shards / f"pretrain{split}",
                    "--val", "0", "--tasks", labels, "--seed", seed, *PRETRAIN,
                )  # fmt: skip
            for start, weights in starts.items():
                network = NETWORK[2:] if start == "random" else ()
                tuning = ("finetune", "--labels", train, "--init", weights, "--seed", seed)
                tuned = trained(runs / f"tuned-{start}-{name}", *tuning, *FINETUNE, *network)
                probe = (*FINETUNE, *network, *PROBE)
                probed = trained(runs / f"probe-{start}-{name}", *tuning, *probe)
                for kind, net in (("tuned", tuned), ("probe", probed)):
                    out = results / f"{kind}-{start}-{name}"
                    command = ("train", "evaluate", net, "--labels", test, "--out", out)
                    once(out / "result.json", *command)
                _measure_features(work, start, probed, where=where)


def _measure_features(work: Path, start: str, net: Path, *, where: tuple[int, int]) -> None:
    """Measure retrieval, and an SVM on Weizmann, by the probe: its backbone is as it was."""
    split, seed = where
    shards, out = work / "shards", work / "results"
    name = f"{start}-split{split}-seed{seed}"
    once(
        out / f"retrieve-{name}" / "result.json", "train", "retrieve", net, "--queries",
        shards / f"test{split}", "--gallery", shards / f"train{split}", "--out",
        out / f"retrieve-{name}",
    )  # fmt: skip
    once(
        out / f"weizmann-{name}" / "result.json", "train", "scenes", net, "--labels",
        shards / "weizmann", "--layer", "pool5", "--group-by", r"group(\w+)/", "--out",
        out / f"weizmann-{name}",
    )  # fmt: skip


def prepare(data: Path, work: Path) -> None:
    """Extract all shards."""
    fights, others = link_groups(data, work, "fights"), link_others(data, work)
    extract(link_groups(data, work, "weizmann"), work, "weizmann", "--no-labels")
    for split in SPLITS:
        train, test = divided(fights, split)
        extract(train, work, f"train{split}", "--no-labels")
        extract(test, work, f"test{split}", "--no-labels")
        unlabelled = [{**row, "class_name": ""} for row in train]
        extract([*unlabelled, *others], work, f"pretrain{split}", "--no-boundaries")


FIGURES = (
    ("fine-tuned, video accuracy", "tuned", "video top-1"),
    ("fine-tuned, clip accuracy", "tuned", "clip top-1"),
    ("linear probe, video accuracy", "probe", "video top-1"),
    ("linear probe, clip accuracy", "probe", "clip top-1"),
    ("retrieval, R@1", "retrieve", "R@1"),
    ("Weizmann, SVM, a person left out", "weizmann", "accuracy"),
)


def report(work: Path) -> Iterator[str]:
    """Yield a Markdown table: mean and standard error over splits and seeds."""
    yield "| | chance | random weights | appearance | motion | joint | runs |"
    yield "| --- " * 7 + "|"
    for title, kind, figure in FIGURES:
        cells, chance, counts = [], "-", set()
        for start in ("random", *TASKS):
            # Random weights know of no split: of what is measured on other videos one is enough.
            split = "split0" if (kind, start) == ("weizmann", "random") else "*"
            found = [
                json.loads(path.read_text())["figures"][figure]
                for path in sorted((work / "results").glob(f"{kind}-{start}-{split}-*/result.json"))
            ]
            counts.add(len(found))
            cells.append(_mean([one["mean"] for one in found]))
            chance = f"{100 * statistics.fmean(o['chance'] for o in found):.1f}" if found else "-"
        yield f"| {title} | {chance} | {' | '.join(cells)} | {'/'.join(map(str, sorted(counts)))} |"


def _mean(values: list[float]) -> str:
    if len(values) < 2:
        return "-"
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{100 * statistics.fmean(values):.1f} ± {100 * error:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with fights, weizmann and the others")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--report", action="store_true", help="print what there is, and no more")
    options = parser.parse_args()
    if not options.report:
        if options.data is None:
            parser.error("--data is needed")
        prepare(options.data, options.work)
        measure(options.work)
    print("\n".join(report(options.work)))


if __name__ == "__main__":
    main()
