"""Action similarity on pairs of videos (paper Sec. 4.4; Kliper-Gross et al., TPAMI 2012, Table 3).

Twelve measures of a pair, each standardised, go into a linear SVM that says "same action" or not;
it is trained on all folds but one and tested on that one. What no source tells is decided here:
the SVM's C is 1 unless told, `EPSILON` stands in for zeros, and vectors are L2-normalised for
measure 9 and L1-normalised for 10 to 12.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from train import TrainError
from train.evaluate.scenes import svm

EPSILON = 1e-10
"""Added to the denominators of measures 4, 6 and 11 and on both sides of the quotients of 10."""
MAT_VARIABLE = "action_splits_pairs"
COLUMNS = ("first", "second", "same", "fold")
_BLOCK = 64
"""Pairs at a time: 13 MB for each step of a measure where videos have 25,088 features."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of videos, in P rows.

    Attributes
    ----------
    first, second : list of str
        Ids of the two videos.
    same : (P,) bool
        Whether they show the same action.
    fold : (P,) int64
        0 or more; in View 2 of ASLAN 0..9.
    """

    first: list[str]
    second: list[str]
    same: np.ndarray
    fold: np.ndarray


@dataclass(frozen=True)
class SimilarityResult:
    """What cross-validation gave.

    Attributes
    ----------
    accuracies : list of float
        Of each fold, by rising fold number, 0..1.
    accuracy : float
        Their mean.
    standard_error : float
        Their standard deviation, of a sample, over the square root of their number.
    auc : float
        Area under the ROC curve of all held-out pairs together, 0..1; see `cross_validate`.
    c : float
        Of the SVMs.
    """

    accuracies: list[float]
    accuracy: float
    standard_error: float
    auc: float
    c: float


def measures(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the twelve (dis)similarities of pairs of videos.

    Parameters
    ----------
    first, second : (P, D) float32
        Features of the two videos, 0 or more. Memory beyond them is that of 64 pairs.

    Returns
    -------
    (P, 12) float64
        In the order of Kliper-Gross et al., Table 3; finite for all-zero vectors too.

    Raises
    ------
    TrainError
        A feature is negative or no finite number.
    """
    result = np.empty((len(first), 12))
    for start in range(0, len(first), _BLOCK):
        rows = slice(start, start + _BLOCK)
        x, y = first[rows].astype(float), second[rows].astype(float)
        good = (np.isfinite(x) & (x >= 0) & np.isfinite(y) & (y >= 0)).all(axis=1)
        if not good.all():
            raise TrainError(
                f"Features of pair {start + good.argmin()} are negative or no finite numbers; "
                "similarity needs those after a ReLU, such as conv5's."
            )
        result[rows] = _measures(x, y)
    return result


def _measures(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    dot, total, apart = (x * y).sum(1), x + y + EPSILON, x - y
    x2, y2 = _normalised(x, 2), _normalised(y, 2)
    x1, y1 = _normalised(x, 1), _normalised(y, 1)
    logs = np.log((x1 + EPSILON) / (y1 + EPSILON))
    columns = [
        dot,
        np.sqrt(dot),
        np.sqrt(np.sqrt(x * y).sum(1)),
        np.sqrt((x * y / total).sum(1)),
        (x2 * y2).sum(1),
        np.sqrt((apart**2 / total).sum(1)),
        np.abs(apart).sum(1),
        np.sqrt(((np.sqrt(x) - np.sqrt(y)) ** 2).sum(1)),
        np.sqrt(((x2 - y2) ** 2).sum(1)),
        ((x1 - y1) * logs).sum(1) / 2,
        np.sqrt(np.maximum(x1, y1) / (x1 + y1 + EPSILON)).sum(1),
        # Over the product of the two sums, which are 1 after L1; of a zero vector this is 0.
        np.minimum(x1, y1).sum(1),
    ]
    return np.stack(columns, axis=1)


def _normalised(x: np.ndarray, order: int) -> np.ndarray:
    norms = np.linalg.norm(x, order, axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, 1.0)


def read_pairs(path: Path) -> Pairs:
    """Read pairs from ASLAN's ``View2.mat`` or from a CSV.

    Parameters
    ----------
    path : Path
        A ``.mat`` with the variable ``action_splits_pairs`` of (pairs, 5, folds) numbers or cells:
        the two ids, whether the actions are the same, and the two actions, which are not used.
        Numeric ids become strings of four digits. Or a CSV, UTF-8, with the header
        ``first,second,same,fold``: ids as they are, 0 or 1, and an integer of 0 or more.

    Raises
    ------
    TrainError
        It cannot be read, or a row or a value makes no sense.
    """
    rows = _mat_rows(path) if path.suffix.lower() == ".mat" else _csv_rows(path)
    if not rows:
        raise TrainError(f"{path} lists no pairs.")
    first, second, same, fold = zip(*rows, strict=True)
    return Pairs(list(first), list(second), np.array(same, bool), np.array(fold, np.int64))


_Row = tuple[str, str, int, int]


def _mat_rows(path: Path) -> list[_Row]:
    pairs = _mat_variable(path)
    if pairs.ndim != 3 or pairs.shape[1] != 5:
        shape = " x ".join(map(str, pairs.shape))
        raise TrainError(f"{path}: {MAT_VARIABLE} is {shape}, not pairs x 5 x folds.")
    rows = []
    for fold in range(pairs.shape[2]):
        for number in range(pairs.shape[0]):
            where = f"{path}: row {number + 1} of split {fold + 1}"
            first, second, same = (_integer(cell, where) for cell in pairs[number, :3, fold])
            rows.append((f"{first:04d}", f"{second:04d}", _flag(same, where), fold))
    return rows


def _mat_variable(path: Path) -> np.ndarray:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise TrainError(
            f"{path} needs the package scipy; pip install scipy, or the extra 'evaluate'."
        ) from None
    try:
        content = loadmat(path, variable_names=[MAT_VARIABLE])
    # A damaged file raises whatever the place of the damage leads to.
    except Exception as error:
        raise TrainError(f"{path} cannot be read as a MATLAB file: {error}.") from None
    if MAT_VARIABLE not in content:
        raise TrainError(f"{path} has no variable {MAT_VARIABLE}; is it ASLAN's View2.mat?")
    return np.asarray(content[MAT_VARIABLE])


def _csv_rows(path: Path) -> list[_Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.reader(stream)
            header = next(lines, [])
            if tuple(header) != COLUMNS:
                raise TrainError(
                    f"{path} begins with {','.join(header)!r}, not with {','.join(COLUMNS)}."
                )
            return [_csv_row(line, f"{path}: line {lines.line_num}") for line in lines if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainError(f"{path} cannot be read: {error}.") from None


def _csv_row(line: Sequence[str], where: str) -> _Row:
    if len(line) != len(COLUMNS) or not (line[0] and line[1]):
        raise TrainError(f"{where} is {','.join(line)!r}, not two ids, 0 or 1, and a fold.")
    return line[0], line[1], _flag(_integer(line[2], where), where), _integer(line[3], where)


def _integer(value: Any, where: str) -> int:
    # A cell holds a number or a string in an array of its own.
    inner = np.asarray(value).ravel()
    try:
        number = float(inner.item())
    except (TypeError, ValueError):
        number = math.nan
    if not (0 <= number < 2**31 and number.is_integer()):
        said = ", ".join(map(str, inner.tolist()))
        raise TrainError(f"{where} holds {said!r} in place of an integer of 0 or more.")
    return int(number)


def _flag(value: int, where: str) -> int:
    if value > 1:
        raise TrainError(f"{where} holds {value} in place of 1 for the same action or 0.")
    return value


def pair_rows(pairs: Pairs, paths: Sequence[str]) -> np.ndarray:
    """Find the videos of pairs among those that there are features of.

    Parameters
    ----------
    pairs : Pairs
    paths : sequence of str
        Of the videos, with forward slashes.

    Returns
    -------
    (P, 2) int64
        Numbers of the first and the second video among `paths`: those whose path is the id, or
        else whose path without suffix is, or else whose file name without suffix is.

    Raises
    ------
    TrainError
        An id fits no video, or several.
    """
    names: list[Callable[[PurePosixPath], object]] = [
        str,
        lambda path: str(path.with_suffix("")),
        lambda path: path.stem,
    ]
    levels = [_numbers(map(name, map(PurePosixPath, paths))) for name in names]
    ids = dict.fromkeys([*pairs.first, *pairs.second])
    found = {name: next((level[name] for level in levels if name in level), []) for name in ids}
    _complain([name for name in ids if not found[name]], "fit no video that has features", len(ids))
    _complain([name for name in ids if len(found[name]) > 1], "fit several videos", len(ids))
    return np.array([[found[name][0] for name in side] for side in (pairs.first, pairs.second)]).T


def _numbers(names: Iterable[object]) -> dict[object, list[int]]:
    numbers: dict[object, list[int]] = {}
    for number, name in enumerate(names):
        numbers.setdefault(name, []).append(number)
    return numbers


def _complain(ids: list[str], what: str, total: int) -> None:
    if ids:
        raise TrainError(
            f"{len(ids)} of the {total} ids in the pairs {what} (first: {ids[0]}); name each video "
            "by its path, its path without suffix, or its file name without suffix."
        )


def cross_validate(
    measures: np.ndarray, same: np.ndarray, fold: np.ndarray, *, c: float = 1.0
) -> SimilarityResult:
    """Tell same from different by a linear SVM, each fold held out once.

    Each measure is brought to mean 0 and variance 1 by the statistics of the training folds; one
    that is constant there says nothing and stays 0 in training.

    The area under the ROC curve is that of the held-out decision values of all folds in one list,
    equal values counting half. The folds' SVMs differ in scale, so that it is not quite the mean
    of the folds' areas.

    Parameters
    ----------
    measures : (P, 12) float64
        Of `measures`; any number of columns will do.
    same : (P,) bool
    fold : (P,) int64
        Two folds or more.
    c : float, optional
        Above 0, as of `train.evaluate.scenes.svm`.

    Raises
    ------
    TrainError
        There is one fold, all other folds hold one kind of pair alone, or scikit-learn is absent.
    """
    folds = np.unique(fold)
    if len(folds) < 2:
        raise TrainError("Cross-validation needs pairs in two folds, and here is one.")
    decisions = np.empty(len(same))
    for number in folds:
        held = fold == number
        if len(np.unique(same[~held])) < 2:
            raise TrainError(
                f"Outside fold {number} all pairs are {'same' if same[~held][0] else 'different'}; "
                "training needs both kinds."
            )
        mean, scale = _moments(measures[~held])
        machine = svm("linear", c).fit((measures[~held] - mean) / scale, same[~held])
        decisions[held] = machine.decision_function((measures[held] - mean) / scale)
    right = (decisions > 0) == same
    accuracies = [float(right[fold == number].mean()) for number in folds]
    error = float(np.std(accuracies, ddof=1) / np.sqrt(len(folds)))
    return SimilarityResult(
        accuracies, float(np.mean(accuracies)), error, _area(decisions, same), c
    )


def _moments(measures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, std = measures.mean(axis=0), measures.std(axis=0)
    # The mean of equal numbers may be off by a rounding, which is not to become a variance of 1.
    return mean, np.where(std > 1e-12 * np.abs(mean), std, 1.0)


def _area(decisions: np.ndarray, same: np.ndarray) -> float:
    """Share of (same, different) couples of pairs in which the same one has the larger value."""
    different = np.sort(decisions[~same])
    below = np.searchsorted(different, decisions[same], side="left")
    not_above = np.searchsorted(different, decisions[same], side="right")
    return float((below + not_above).mean() / 2 / len(different))
