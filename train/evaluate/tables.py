"""The paper's Tables 1 to 6, cell by cell: its number beside ours, never without a floor."""

from __future__ import annotations

import csv
import fcntl
from pathlib import Path
from typing import Any

from labelgen.files import replacing
from train import TrainError
from train.evaluate.result import read_result

PAPER = {
    1: {
        "random": {"ucf101": 45.4},
        "pattern-1": {"ucf101": 53.8},
        "pattern-2": {"ucf101": 53.2},
        "pattern-3": {"ucf101": 54.2},
    },
    2: {
        "random": {"ucf101": 45.4},
        "global": {"ucf101": 48.3},
        "patterns": {"ucf101": 55.4},
        "patterns+global": {"ucf101": 57.8},
    },
    3: {
        "scratch": {"ucf101": 45.4, "hmdb51": 19.7},
        "appearance": {"ucf101": 48.6, "hmdb51": 20.3},
        "motion": {"ucf101": 57.8, "hmdb51": 29.95},
        "joint": {"ucf101": 58.8, "hmdb51": 32.6},
    },
    4: {
        "ours-ucf101": {"ucf101": 58.8, "hmdb51": 32.6},
        "ours-kinetics": {"ucf101": 61.2, "hmdb51": 33.4},
    },
    5: {
        "random": {"aslan": 51.7},
        "scratch": {"aslan": 58.3},
        "self-supervised": {"aslan": 59.4},
        "fine-tuned": {"aslan": 62.3},
    },
    6: {"ours": {"yupenn": 90.2}},
}
"""Table -> row -> dataset -> per cent, as printed; of Table 4 the rows that are the paper's own."""

MEASURED_BY = dict.fromkeys((1, 2, 3, 4), "evaluate") | {5: "similarity", 6: "scenes"}
"""Table -> the command whose result it takes."""

COLUMNS = (
    *("table", "row", "column", "paper", "ours", "standard_error", "runs", "figure", "chance"),
    *("random", "scratch", "protocol", "protocol_hash", "weights", "data", "smoke"),
)


def put(
    result: Path,
    output: Path,
    *,
    table: int,
    row: str,
    column: str,
    figure: str | None = None,
    of: str = "result",
    smoke: bool = False,
) -> None:
    """Write a result into its cell of a CSV; what the cell held before is replaced.

    Parameters
    ----------
    result : path
        A ``result.json``, or its folder.
    output : path
        The CSV, with a row per cell: `COLUMNS`, figures in per cent.
    table, row, column
        Keys of `PAPER`.
    figure : str, optional
        Of the result; that which counts most by default.
    of : str, optional
        ``result``, or the floor that is itself the cell: ``random`` weights, ``scratch``.
    smoke : bool, optional
        Whether the cell shows no more than that everything runs.

    Raises
    ------
    TrainError
        There is no such cell or figure, the result has no floor, or the CSV is another table's.
    """
    paper = _paper(table, row, column)
    found = read_result(result)
    if found["command"] != MEASURED_BY[table]:
        raise TrainError(
            f"{result} is of `train {found['command']}`; Table {table} takes `train "
            f"{MEASURED_BY[table]}`."
        )
    try:
        new = _cell(found, figure, of=of, where=result)
        _check_scratch(found, table, row, where=result)
    except (KeyError, TypeError, ValueError) as error:
        raise TrainError(f"{result} is damaged ({error!r}); evaluate again.") from None
    key = {"table": str(table), "row": row, "column": column}
    new |= {**key, "paper": str(paper), "smoke": "smoke" if smoke else ""}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.with_name(f".{output.name}.lock").open("w") as lock:
            # Cells may be put at once, as by `make -j`.
            fcntl.flock(lock, fcntl.LOCK_EX)
            _replace(output, key, new)
    except OSError as error:
        raise TrainError(f"{output} cannot be written ({error.strerror or error}).") from None


def _replace(output: Path, key: dict[str, str], new: dict[str, str]) -> None:
    cells = _read(output)
    if new["smoke"] and any(not c["smoke"] and key.items() <= c.items() for c in cells):
        raise TrainError(f"{output} holds a real result in this cell; name another file for smoke.")
    kept = [cell for cell in cells if any(cell[name] != value for name, value in key.items())]
    order = [(n, r, c) for n, rows in PAPER.items() for r, columns in rows.items() for c in columns]
    kept = sorted([*kept, new], key=lambda c: order.index((int(c["table"]), c["row"], c["column"])))
    with replacing(output) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


def _paper(table: int, row: str, column: str) -> float:
    rows = PAPER[table]
    if row not in rows or column not in rows[row]:
        known = ", ".join(f"{r} ({'/'.join(columns)})" for r, columns in rows.items())
        raise TrainError(f"Table {table} has no cell {row}, {column}; it has {known}.")
    return rows[row][column]


def _check_scratch(result: dict[str, Any], table: int, row: str, *, where: Path) -> None:
    """Refuse a fine-tuned network alone: random weights are no floor of one, but scratch is."""
    headline = result["figures"][result["headline"]]
    if table <= 4 and row not in ("random", "scratch") and not headline["scratch"]:
        raise TrainError(
            f"{where} has no floor for {row}: evaluate again with --scratch RUN, a training alike "
            "without pre-training."
        )


def _cell(result: dict[str, Any], name: str | None, *, of: str, where: Path) -> dict[str, str]:
    figures = result["figures"]
    name = result["headline"] if name is None else name
    if name not in figures:
        raise TrainError(f"{where} has no figure {name!r}; it has {', '.join(figures)}.")
    figure = figures[name]
    if figure.get("random") is None or figure.get("chance") is None:
        raise TrainError(
            f"{where} has no floor for {name}: without chance and random weights beside it, it is "
            "no cell of a table. Evaluate again with --seeds 1."
        )
    shown, scratch = figure if of == "result" else figure[of], figure.get("scratch")
    if shown is None:
        raise TrainError(f"{where} has nothing from scratch; evaluate with --scratch RUN.")
    protocol = result["protocol"]
    hashes = {
        "result": [entry["hash"] for entry in result["weights"]],
        "random": ["random"],
        "scratch": [entry["hash"] for entry in result["scratch"]],
    }
    return {
        "ours": _per_cent(shown["mean"]),
        "standard_error": _per_cent(shown["standard_error"]),
        "runs": str(len(shown["values"])),
        "figure": name,
        "chance": _per_cent(figure["chance"]),
        "random": _per_cent(figure["random"]["mean"]),
        "scratch": _per_cent(scratch["mean"] if scratch else None),
        "protocol": protocol["name"],
        "protocol_hash": protocol["hash"],
        "weights": " ".join(hashes[of]),
        "data": " ".join(digest[:16] for digest in result["data"].values()),
    }


def _per_cent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            cells = list(reader)
        if tuple(reader.fieldnames or ()) == COLUMNS:
            return cells
    except (OSError, UnicodeDecodeError, csv.Error):
        pass
    raise TrainError(f"{path} is no table of such cells; name another file.")
