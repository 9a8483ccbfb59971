"""The experiments of the paper's Section 4, one function each: weights and shards in, a result out.

Each measures random weights of the same network by the same protocol beside the trained ones.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labelgen.files import replacing, write_json
from labelgen.geometry import CLIP_LENGTH, CROP_SIZE
from labelgen.labels.crops import crop_positions
from train import TrainError
from train.data.chunks import StoredClips
from train.data.shards import ShardSet, open_shards, opened
from train.data.split import group_of
from train.device import Machine
from train.evaluate import accuracy, attention, retrieval, scenes, similarity
from train.evaluate.features import Features, extract, stream, unit
from train.evaluate.result import Outcome, Trial, measured
from train.models.weights import Weights, read_weights

KS = (1, 5, 10, 20, 50)
_PAIRS = 512  # at a time
_SHOWN = 6  # queries in a picture
_ACROSS = 6  # pictures in a row of it


def classify(trial: Trial, labels: str) -> dict[str, Any]:
    """Measure action recognition (Sec. 4.3): accuracy of fine-tuned networks on clips and videos.

    Parameters
    ----------
    trial : Trial
        Of fine-tuned networks. Its folder gets accuracies per class, confusion matrices, logits.
    labels : str
        Shards of the videos to classify.

    Returns
    -------
    dict
        As `measured`.

    Raises
    ------
    TrainError
        A network without a classifier, or shards with classes it does not know.
    """
    trial = replace(trial, protocol=replace(trial.protocol, layer="logits"))

    def measure(weights: Weights, folder: Path) -> Outcome:
        if not weights.classes:
            raise TrainError(f"{weights.name} has no classifier; `train finetune` makes one.")
        clips = _features(trial, weights, labels, folder / "logits.h5", rows="clip")
        _check_classes(clips, labels)
        paths, videos = _numbered(clips.paths)
        known = dict(zip(clips.paths, clips.class_names, strict=True))
        lost = clips.without_clips
        recognition = accuracy.recognise(
            clips.values,
            videos,
            classes=_known([known[path] for path in paths], weights, labels),
            without_clips=_known(list(lost.values()), weights, labels),
            average=trial.protocol.average,
        )
        notes = _lost(lost)
        if clips.record["shards"] in weights.shards:
            notes.append(f"{weights.name} was trained on these very shards, or chosen by them.")
        accuracy.write_confusion(folder / "confusion.csv", recognition, weights.classes)
        if not accuracy.draw_confusion(folder / "confusion.png", recognition, weights.classes):
            notes.append("No picture of the confusion matrix: matplotlib is not installed.")
        figures, chance = (
            {
                f"{what} top-{k}": shares[k]
                for what, shares in zip(("video", "clip"), both, strict=True)
                for k in shares
                if k < len(weights.classes)
            }
            for both in (
                (recognition.video, recognition.clip),
                (recognition.video_chance, recognition.clip_chance),
            )
        )
        return Outcome(figures, chance, {"labels": clips.record["shards"]}, notes)

    return measured("evaluate", trial, measure)


def _features(
    trial: Trial, weights: Weights, labels: str, output: Path, *, rows: str = "video"
) -> Features:
    return extract(
        weights, labels, output, protocol=trial.protocol, machine=trial.machine, rows=rows,
        renew=True,
    )  # fmt: skip


def _numbered(names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Distinct names in order, and (N,) int64: the place of each among them."""
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return list(places), np.array([places[name] for name in names], np.int64)


def _known(names: list[str], weights: Weights, labels: str) -> np.ndarray:
    unknown = sorted(set(names).difference(weights.classes))
    if unknown:
        raise TrainError(
            f"{labels} holds {len(unknown)} classes that {weights.name} was not trained on (first: "
            f"{unknown[0] or 'a video without a class'})."
        )
    return np.array([weights.classes.index(name) for name in names], np.int64)


def _check_classes(features: Features, labels: str) -> None:
    if "" in features.class_names:
        raise TrainError(
            f"{labels} holds videos without a class (first: "
            f"{features.paths[features.class_names.index('')]}); extract from a manifest with "
            "the column class_name."
        )


def _lost(without_clips: dict[str, str]) -> list[str]:
    if not without_clips:
        return []
    count = len(without_clips)
    return [
        f"{count} videos gave no clip and count as wrong: {', '.join(list(without_clips)[:10])}"
        + (", ..." if count > 10 else "")
    ]


def retrieve(trial: Trial, *, queries: str, gallery: str) -> dict[str, Any]:
    """Measure video retrieval: whether a video of a query's class is among the k nearest.

    Parameters
    ----------
    trial : Trial
        Its folder gets features, nearest neighbours as CSV and some as a picture.
    queries, gallery : str
        Shards: test videos, and training videos that are searched.
    """
    protocol = trial.protocol

    def measure(weights: Weights, folder: Path) -> Outcome:
        both = [
            _features(trial, weights, labels, folder / f"{name}.h5")
            for name, labels in (("queries", queries), ("gallery", gallery))
        ]
        asked, searched = (
            _first(features, protocol.kept(len(features.paths))) for features in both
        )
        found, similarities = retrieval.nearest(
            asked.values, searched.values, count=max(KS), centre=protocol.centre
        )
        _check_classes(asked, queries)
        _check_classes(searched, gallery)
        names = np.array(asked.class_names), np.array(searched.class_names)
        if not np.isin(names[0], names[1]).any():
            raise TrainError(f"{queries} and {gallery} have no class in common.")
        recall = retrieval.recall_at(found, names[0], gallery_classes=names[1], ks=KS)
        retrieval.write_neighbours(
            folder / "neighbours.csv", found, similarities=similarities, queries=asked.paths,
            gallery=searched.paths, query_classes=names[0], gallery_classes=names[1],
        )  # fmt: skip
        dropped = len(both[0].paths) - len(asked.paths)
        lost = asked.without_clips
        # A query that cannot be asked finds nothing.
        share = len(asked.paths) / (len(asked.paths) + len(lost))
        notes = _lost(lost)
        if searched.without_clips:
            notes.append(f"{len(searched.without_clips)} videos of the gallery gave no clip.")
        twins = len(set(asked.paths) & set(searched.paths))
        if twins:
            notes.append(
                f"{twins} videos have one path among queries and gallery; if they are the same, "
                "they find themselves."
            )
        if dropped:
            notes.append(
                f"{dropped} queries fill no batch of {protocol.drop_last} and are dropped."
            )
        chance = retrieval.chance_at(*names, ks=KS)
        return Outcome(
            {f"R@{k}": value * share for k, value in recall.items()},
            {f"R@{k}": value * share for k, value in chance.items()},
            {
                name: f.record["shards"]
                for name, f in zip(("queries", "gallery"), both, strict=True)
            },
            notes,
        )

    result = measured("retrieve", trial, measure)
    _draw_neighbours(
        trial.out / "run-0", trial.out / "neighbours.png", queries=queries, gallery=gallery
    )
    return result


def _first(features: Features, count: int) -> Features:
    return replace(
        features, values=features.values[:count], paths=features.paths[:count],
        class_names=features.class_names[:count],
    )  # fmt: skip


def tell_similar(trial: Trial, labels: str, *, pairs: Path, c: float = 1.0) -> dict[str, Any]:
    """Measure action similarity (Sec. 4.4, ASLAN): whether two videos show the same action.

    Parameters
    ----------
    trial : Trial
        Its folder gets features, and accuracies per fold.
    labels : str
        Shards of all videos of the pairs, with a clip every 8 frames as in the paper.
    pairs : path
        ``View2.mat``, or a CSV, as for `similarity.read_pairs`.
    c : float, optional
        Of the SVMs.
    """
    asked = similarity.read_pairs(pairs)

    def measure(weights: Weights, folder: Path) -> Outcome:
        features = _features(trial, weights, labels, folder / "features.h5")
        rows = similarity.pair_rows(asked, features.paths)
        values = unit(features.values)
        measures = np.concatenate(
            [
                similarity.measures(values[part[:, 0]], values[part[:, 1]])
                for part in np.array_split(rows, -(-len(rows) // _PAIRS))
            ]
        )
        found = similarity.cross_validate(measures, asked.same, fold=asked.fold, c=c)
        write_json(folder / "folds.json", {"accuracies": found.accuracies, "c": c})
        chance = max(asked.same.mean(), 1 - asked.same.mean())
        return Outcome(
            {"accuracy": found.accuracy, "area under ROC": found.auc},
            {"accuracy": float(chance), "area under ROC": 0.5},
            {"labels": features.record["shards"], "pairs": _hash_of(pairs)},
            [
                f"{weights.name}: standard error over {len(found.accuracies)} folds "
                f"{found.standard_error:.2%}"
            ],
        )

    return measured("similarity", trial, measure, c=c)


def _hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def recognise_scenes(
    trial: Trial,
    labels: str,
    *,
    c: float = 1.0,
    folds: int | None = None,
    group_by: str | None = None,
) -> dict[str, Any]:
    """Measure scene recognition (Sec. 4.5, YUPENN) by a linear SVM, leaving videos out in turn.

    Parameters
    ----------
    trial, labels
        As for `tell_similar`; any videos with classes will do.
    c : float, optional
        Of the SVMs.
    folds : int, optional
        Leave out one of so many parts at a time, in place of a video.
    group_by : str, optional
        Regular expression of what videos of a group share in their paths: leave out groups.
    """

    def measure(weights: Weights, folder: Path) -> Outcome:
        features = _features(trial, weights, labels, folder / "features.h5")
        _check_classes(features, labels)
        names, classes = _numbered(features.class_names)
        if len(names) < 2:
            raise TrainError(
                f"{labels} holds one class, {names[0]}; there is nothing to tell apart."
            )
        groups = _groups(features.paths, classes, folds=folds, group_by=group_by)
        said = scenes.leave_out(unit(features.values), classes, groups=groups, c=c)
        _write_said(folder / "predictions.csv", features, [names[place] for place in said])
        share = len(said) / (len(said) + len(features.without_clips))
        most = np.bincount(classes).max() / len(classes)
        return Outcome(
            {"accuracy": scenes.accuracy(said, classes) * share},
            {"accuracy": float(most) * share},
            {"labels": features.record["shards"]}, _lost(features.without_clips),
        )  # fmt: skip

    return measured("scenes", trial, measure, c=c, folds=folds, group_by=group_by)


def _groups(
    paths: list[str], classes: np.ndarray, *, folds: int | None, group_by: str | None
) -> np.ndarray:
    if folds is not None and group_by is not None:
        raise TrainError("Give --folds or --group-by, not both: each says what is left out.")
    if folds is not None:
        return scenes.fold_groups(classes, folds, seed=0)
    if group_by is not None:
        return _numbered([group_of(path, group_by) for path in paths])[1]
    return scenes.single_groups(len(paths))


def _write_said(path: Path, features: Features, said: list[str]) -> None:
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["path", "class", "said"])
        table.writerows(zip(features.paths, features.class_names, said, strict=True))


def show_attention(
    run: str, labels: str, output: Path, *, machine: Machine, clips: Sequence[int] = ()
) -> None:
    """Draw where conv5 looks in some clips, beside their motion boundaries (Sec. 4.3, Figure 6).

    Parameters
    ----------
    run : str
        As for `read_weights`.
    labels : str
        Shards with stored motion boundaries.
    output : path
        A picture.
    machine : Machine
    clips : sequence of int, optional
        Numbers of clips; without them six at even distances.

    Raises
    ------
    TrainError
        There is no such clip, or boundaries are not stored.
    """
    shards = open_shards(labels, labels=False)
    chosen = list(clips) or np.linspace(0, shards.clips - 1, 6).astype(int).tolist()
    beyond = [clip for clip in chosen if not 0 <= clip < shards.clips]
    if beyond:
        raise TrainError(f"{labels} has clips 0 to {shards.clips - 1}, and no {beyond[0]}.")
    layer = "conv5"
    weights = read_weights(run)
    net = weights.network()
    values = stream(weights, shards, np.array(chosen), layer, machine=machine)
    shape = net(torch.zeros(1, CLIP_LENGTH, CROP_SIZE, CROP_SIZE, 3, dtype=torch.uint8))[
        layer
    ].shape
    rows = [
        _attention_row(shards, clip, torch.from_numpy(value).reshape(shape))
        for clip, value in zip(chosen, values, strict=True)
    ]
    attention.draw(rows, output)


def _attention_row(shards: ShardSet, clip: int, conv5: torch.Tensor) -> attention.AttentionRow:
    shard, row = shards.locate(clip)
    top, left = crop_positions("center")[0].tolist()
    inside = np.s_[..., top : top + CROP_SIZE, left : left + CROP_SIZE]
    with opened(shard) as file:
        if "motion_boundaries" not in file:
            raise TrainError(
                f"{shard.path.name} has no motion boundaries (extracted with --no-boundaries or "
                "--no-labels?), which the picture shows."
            )
        boundaries = file["motion_boundaries"][row].astype(np.float32)[inside]
        video = file["videos/path"].asstr()[int(file["clips/video"][row])]
        name = f"{video} from frame {file['clips/start'][row]}"
    middle = CLIP_LENGTH // 2
    frame = StoredClips(shard.path, stamp=shard.stamp).frames(row)[middle]
    maps = attention.over_frames(
        attention.attention_maps(conv5), frames=CLIP_LENGTH, size=CROP_SIZE
    )
    return attention.AttentionRow(
        name, frame[top : top + CROP_SIZE, left : left + CROP_SIZE], maps[0, middle].numpy(),
        np.hypot(*boundaries[:2]), np.hypot(*boundaries[2:]),
    )  # fmt: skip


def _draw_neighbours(folder: Path, output: Path, *, queries: str, gallery: str) -> None:
    """Draw the middle frames of some queries and of what is nearest to them, if it can be drawn."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture of neighbours: matplotlib is not installed", file=sys.stderr)
        return
    with (folder / "neighbours.csv").open(encoding="utf-8", newline="") as stream:
        found = [row for row in csv.DictReader(stream) if int(row["rank"]) < _ACROSS]
    asked = list(dict.fromkeys(row["query"] for row in found))
    asked = [asked[place] for place in np.linspace(0, len(asked) - 1, _SHOWN).astype(int)]
    asked = list(dict.fromkeys(asked))
    frames = _middle_frames(queries, asked)
    shown = [[row for row in found if row["query"] == query] for query in asked]
    theirs = _middle_frames(gallery, [row["neighbour"] for rows in shown for row in rows])
    figure = Figure(figsize=(2 * _ACROSS, 1.9 * len(asked)), layout="constrained")
    table = figure.subplots(len(asked), _ACROSS, squeeze=False)
    for axes, query, rows in zip(table, asked, shown, strict=True):
        _picture(axes[0], frames[query], f"query: {rows[0]['query_class']}", "black")
        for one, row in zip(axes[1:], rows, strict=False):
            hit = row["hit"] == "1"
            _picture(
                one, theirs[row["neighbour"]],
                f"{'+' if hit else '-'} {row['neighbour_class']} {float(row['similarity']):.3f}",
                "#1f6fb4" if hit else "#c8452d",
            )  # fmt: skip
        for one in axes[1 + len(rows) :]:
            one.axis("off")
    with replacing(output) as partial:
        figure.savefig(partial, dpi=100, format="png")


def _picture(axes: Any, frame: np.ndarray, title: str, colour: str) -> None:
    axes.imshow(frame)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, color=colour, fontsize=8)
    for side in axes.spines.values():
        side.set(color=colour, linewidth=2)


def _middle_frames(labels: str, paths: list[str]) -> dict[str, np.ndarray]:
    """By path, a frame of the middle clip of each video, (128, 171, 3) uint8."""
    shards = open_shards(labels, labels=False)
    known, of_clip = shards.videos()
    frames = {}
    for path in dict.fromkeys(paths):
        clips = np.flatnonzero(of_clip == known.index(path))
        shard, row = shards.locate(int(clips[len(clips) // 2]))
        frames[path] = StoredClips(shard.path, stamp=shard.stamp).frames(row)[CLIP_LENGTH // 2]
    return frames
