"""A figure and the floors it stands on: chance, random weights, training from scratch; with errors.

No result is told without them: what random weights score differs from implementation to
implementation, and an increase over nothing says nothing.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import labelgen
from labelgen.files import write_json
from train import TrainError
from train.device import Machine
from train.evaluate.protocols import Protocol
from train.models.weights import Weights, read_weights
from train.recipe import SCRATCH

RESULT_FILE = "result.json"
FORMAT = "motion-appearance-result"


class Outcome(NamedTuple):
    """What one network came to.

    Attributes
    ----------
    figures, chance : dict of str to float
        By the figure's name.
    data : dict of str to str
        Hashes of what it was measured on.
    notes : list of str
        What one should know of it.
    """

    figures: dict[str, float]
    chance: dict[str, float]
    data: dict[str, str]
    notes: list[str]


@dataclass(frozen=True)
class Trial:
    """Which networks are measured, and how.

    Attributes
    ----------
    runs : sequence of str
        As for `read_weights`: repetitions of one training by different seeds.
    out : path
        Folder for the result and for what it is made of.
    protocol : Protocol
    machine : Machine
    seeds : int
        Networks of random weights to stand beside.
    scratch : sequence of str
        Runs that were trained alike without pre-training, to stand beside.
    """

    runs: Sequence[str]
    out: Path
    protocol: Protocol
    machine: Machine
    seeds: int = 1
    scratch: Sequence[str] = ()


Measure = Callable[[Weights, Path], Outcome]


def measured(command: str, trial: Trial, measure: Measure, **details: Any) -> dict[str, Any]:
    """Measure networks and their floors alike, and write ``result.json``.

    Parameters
    ----------
    command : str
        What is measured.
    trial : Trial
    measure : callable
        Takes weights and a folder for what it makes of them.
    details
        What else decides beside the protocol, for its hash.

    Returns
    -------
    dict
        As in the file: per figure, of which `headline` counts most, `values`, `mean`,
        `standard_error`, `chance`, and the same of `random` weights and `scratch`.

    Raises
    ------
    TrainError
        There are no such weights, two are the same, or of other networks than the rest, or the
        result cannot be written.
    """
    runs, scratch = ([read_weights(run) for run in kind] for kind in (trial.runs, trial.scratch))
    _check_repetitions(runs, runs[0])
    _check_repetitions(scratch, runs[0])
    for weights in scratch:
        if weights.begun != SCRATCH:
            raise TrainError(
                f"{weights.name} was not trained from scratch; name another --scratch."
            )
    random = [runs[0].randomised(seed) for seed in range(trial.seeds)]
    out = trial.out
    outcomes = {
        kind: [measure(weights, out / f"{kind}-{number}") for number, weights in enumerate(several)]
        for kind, several in (("run", runs), ("random", random), ("scratch", scratch))
    }
    first = outcomes["run"][0]
    result = {
        "format": FORMAT,
        "command": command,
        "version": labelgen.__version__,
        "protocol": trial.protocol.record(command, **details),
        "data": first.data,
        "weights": [{"name": w.name, "hash": w.digest()} for w in runs],
        "scratch": [{"name": w.name, "hash": w.digest()} for w in scratch],
        "network": runs[0].recipe.network(),
        "headline": next(iter(first.figures)),
        "figures": {
            name: {
                **_spread(_values(outcomes["run"], name)),
                "chance": first.chance[name],
                **{
                    kind: _spread(_values(outcomes[kind], name)) if outcomes[kind] else None
                    for kind in ("random", "scratch")
                },
            }
            for name in first.figures
        },
        "notes": list(dict.fromkeys(note for outcome in outcomes["run"] for note in outcome.notes)),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / RESULT_FILE, result)
    except OSError as error:
        raise TrainError(f"{out / RESULT_FILE} cannot be written ({error.strerror}).") from None
    return result


def _check_repetitions(several: Sequence[Weights], first: Weights) -> None:
    names = {weights.digest(): weights.name for weights in several}
    if len(names) < len(several):
        raise TrainError(
            f"{len(several)} runs hold only {len(names)} different networks (first: "
            f"{next(iter(names.values()))}); a repetition is a run with another seed."
        )
    for weights in several:
        if weights.recipe.network() != first.recipe.network():
            raise TrainError(
                f"{weights.name} is another network than {first.name}; only like can be compared."
            )
        if replace(weights.recipe, seed=0) != replace(several[0].recipe, seed=0):
            raise TrainError(
                f"{weights.name} was trained by another recipe than {several[0].name}; repetitions "
                "differ in their seed alone."
            )


def _values(outcomes: list[Outcome], figure: str) -> list[float]:
    return [outcome.figures[figure] for outcome in outcomes]


def _spread(values: list[float]) -> dict[str, Any]:
    """Values, their mean, and its standard error where there are two or more."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"values": values, "mean": statistics.fmean(values), "standard_error": error}


def table(result: dict[str, Any]) -> str:
    """Return a result for people, as a Markdown table with its protocol under it."""
    rows = ["| figure | result | chance | random weights | from scratch |", "| --- " * 5 + "|"]
    for name, figure in result["figures"].items():
        cells = [_cell(figure), f"{figure['chance']:.1%}"]
        cells += [_cell(figure[kind]) for kind in ("random", "scratch")]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    protocol = result["protocol"]
    rows.append(
        f"\nprotocol {protocol['name']} ({protocol['hash']}), weights "
        f"{', '.join(entry['hash'] for entry in result['weights'])}, data "
        f"{', '.join(digest[:16] for digest in result['data'].values())}"
    )
    return "\n".join([*rows, *result["notes"]])


def _cell(spread: dict[str, Any] | None) -> str:
    if spread is None:
        return "-"
    error = spread["standard_error"]
    return f"{spread['mean']:.1%}" + ("" if error is None else f" ± {100 * error:.1f}")


def read_result(path: Path) -> dict[str, Any]:
    """Read a ``result.json``, or the one in a folder.

    Raises
    ------
    TrainError
        There is none.
    """
    file = path / RESULT_FILE if path.is_dir() else path
    try:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if result["format"] == FORMAT:
            return result
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise TrainError(f"{file} is no result; give the --out of an evaluation.")
