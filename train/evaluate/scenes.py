"""Dynamic scenes by linear SVM, one video left out (paper Sec. 4.5; Derpanis et al., CVPR 2012).

The paper does not tell the C of its SVM; 1 is the default here. Of more than two classes, each
pair has an SVM of its own and the most votes decide, as in LIBSVM (Chang and Lin, 2011).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from train import TrainError


def svm(kernel: str, c: float) -> Any:
    """Return an untrained support vector machine that draws no random numbers.

    SVC solves the hinge loss with a free intercept, in an order that the data alone decide.
    LinearSVC would visit the videos in a random order and penalise the intercept.

    Parameters
    ----------
    kernel : {'linear', 'precomputed'}
    c : float
        Above 0: what a mistake in training costs.

    Raises
    ------
    TrainError
        scikit-learn is absent.
    """
    try:
        from sklearn.svm import SVC
    except ImportError:
        raise TrainError(
            "A linear SVM needs the package scikit-learn; pip install scikit-learn, or the extra "
            "'evaluate'."
        ) from None
    return SVC(kernel=kernel, C=c)


def leave_out(
    features: np.ndarray, classes: np.ndarray, *, groups: np.ndarray, c: float = 1.0
) -> np.ndarray:
    """Predict each group's videos by a linear SVM that is trained on all videos of other groups.

    All products of two videos are computed once, so that each of the many trainings is of N x N
    numbers however many features there are.

    Parameters
    ----------
    features : (N, D) float32
        One row per video, of L2 norm 1.
    classes : (N,) int64
    groups : (N,) int64
        Videos of a group are left out together; see `single_groups` and `fold_groups`.
    c : float, optional
        Above 0, as of `svm`.

    Returns
    -------
    (N,) int64
        Predicted classes.

    Raises
    ------
    TrainError
        A feature is no finite number, or without one of the groups there are fewer than two
        classes to learn, or scikit-learn is absent.
    """
    if not np.isfinite(features).all():
        row = np.isfinite(features).all(axis=1).argmin()
        raise TrainError(
            f"Features of row {row} are no finite numbers; check the checkpoint and extract them "
            "again."
        )
    machine = svm("precomputed", c)
    exact = features.astype(float)
    gram = exact @ exact.T
    predictions = np.empty(len(classes), np.int64)
    for group in np.unique(groups):
        kept, left = np.flatnonzero(groups != group), np.flatnonzero(groups == group)
        if len(np.unique(classes[kept])) < 2:
            raise TrainError(
                f"Without group {group} there are fewer than two classes to learn; add videos of "
                "other classes, or make more groups."
            )
        machine.fit(gram[np.ix_(kept, kept)], classes[kept])
        predictions[left] = machine.predict(gram[np.ix_(left, kept)])
    return predictions


def single_groups(count: int) -> np.ndarray:
    """Return (count,) int64 groups of one video each: leave one video out."""
    return np.arange(count)


def fold_groups(classes: np.ndarray, folds: int, *, seed: int) -> np.ndarray:
    """Deal the videos of each class to folds at random, as evenly as can be.

    Parameters
    ----------
    classes : (N,) int64
    folds : int
        From 2 to N.
    seed : int
        0 or more.

    Returns
    -------
    (N,) int64
        Numbers from 0; two folds differ by at most one video, in all and of each class.

    Raises
    ------
    TrainError
        There are fewer than two folds, or fewer videos than folds.
    """
    if not 2 <= folds <= len(classes):
        raise TrainError(f"{len(classes)} videos make 2 to {len(classes)} folds, not {folds}.")
    order = np.random.default_rng(seed).permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    groups = np.empty(len(classes), np.int64)
    groups[order] = np.arange(len(classes)) % folds
    return groups


def accuracy(predictions: np.ndarray, classes: np.ndarray) -> float:
    """Return the share of (N,) predictions that are right, 0..1."""
    return float((predictions == classes).mean())
