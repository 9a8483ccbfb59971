"""A page on which one drags the crop over a clip and sees its 27 labels change (Sec. 3.4).

It holds what shards store of some clips: their frames and the labels of all 1020 crops. All that
the page knows of labels, such as their mirror images and the outlines of blocks, it is told here.
"""

from __future__ import annotations

import base64
import json
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from labelgen.errors import LabelgenError
from labelgen.geometry import CLIP_LENGTH, CROP_SIZE, FRAME_SIZE, MAX_LEFT, MAX_TOP
from labelgen.labels.crops import crop_numbers, crop_positions
from labelgen.labels.partitions import PARTITIONS
from labelgen.labels.table import LABELS, flip_labels
from labelgen.page import Html, data_url, page, write_page
from labelgen.pictures.palette import COLOURS, STYLES, orientation_angle, value_words
from labelgen.pictures.view import block_anchor
from labelgen.progress import count_text
from labelgen.shards.sequence import Shards

_QUALITY = 85
_ACROSS = 4
_FIELDS = (("u", 0), ("v", 2))


def write_explorer(path: Path, output: Path, *, clips: int = 24) -> int:
    """Write the page about some clips of a shard folder.

    Parameters
    ----------
    path : Path
        The shard folder; of one in the making, what is sealed.
    output : Path
        The HTML file.
    clips : int, optional
        How many of them at most, spread over the videos.

    Returns
    -------
    int
        How many clips the page has.

    Raises
    ------
    LabelgenError
        If there is no shard folder, it does not hold frames and the labels of all crops, or the
        page cannot be written.
    """
    shards = Shards(path)
    _check(shards)
    videos = np.unique([shards.video(i)[0] for i in range(len(shards))], return_inverse=True)[1]
    chosen = spread_clips(videos, clips).tolist()
    content = {
        "size": {
            **{"height": FRAME_SIZE[0], "width": FRAME_SIZE[1], "crop": CROP_SIZE},
            **{"frames": CLIP_LENGTH, "across": _ACROSS},
            **{"tops": MAX_TOP + 1, "lefts": MAX_LEFT + 1},
        },
        "labels": _label_facts(shards.profile),
        "partitions": [_partition_facts(name, masks) for name, masks, _ in PARTITIONS],
        "colours": COLOURS,
        "styles": {what: style._asdict() for what, style in STYLES.items()},
        "clips": [_clip_facts(shards, i) for i in chosen],
    }
    told = f"{count_text(len(chosen), 'clip')} of {len(shards)} in {path.name or path}"
    write_page(output, explorer_page(content, told))
    return len(chosen)


def explorer_page(content: dict[str, Any], told: str) -> Html:
    """Return the page for its data, as `write_explorer` gathers it, and a line about them."""
    web = files("labelgen.pictures") / "web"
    style, script, body = (
        (web / f"explore.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html")
    )
    # No text of a video may end the script that holds it.
    data = json.dumps(content | {"told": told}, ensure_ascii=True).replace("<", "\\u003c")
    holder = Html(f'<script type="application/json" id="data">{data}</script>')
    return page("Explore the labels", Html(body), holder, style=style, script=script)


def spread_clips(videos: np.ndarray, count: int) -> np.ndarray:
    """Return clips that are spread evenly over videos, and evenly over each of them.

    Parameters
    ----------
    videos : (N,) int
        Of each clip the number of its video, from 0, none left out.
    count : int
        How many clips to choose.

    Returns
    -------
    (min(N, count),) int64
        Their numbers, in order.
    """
    sizes = np.bincount(videos)
    shares = np.zeros_like(sizes)
    while (left := min(count, len(videos)) - shares.sum()) > 0:
        open_ = np.flatnonzero(shares < sizes)
        shares[open_[_evenly(len(open_), min(left, len(open_)))]] += 1
    clips = [np.flatnonzero(videos == video) for video in range(len(sizes))]
    return np.sort(
        np.concatenate(
            [own[_evenly(len(own), share)] for own, share in zip(clips, shares, strict=True)]
        )
    )


def _evenly(total: int, count: int) -> np.ndarray:
    """Return `count` of `total` places, each in the middle of its part."""
    return (2 * np.arange(count) + 1) * total // (2 * max(count, 1))


def _check(shards: Shards) -> None:
    """Raise `LabelgenError` if a page cannot be made of shards."""
    # Where there is no clip or no label, this says so.
    _ = shards.labels
    everywhere = crop_positions("all")
    if len(shards.crops) != len(everywhere):
        raise LabelgenError(
            f"{shards.path} holds labels of {count_text(len(shards.crops), 'crop')} per clip and "
            f"the page needs all {len(everywhere)}; make other shards with labelgen extract "
            "--crops all --out ANOTHER_FOLDER"
        )
    if not shards.has_frames:
        raise LabelgenError(
            f"{shards.path} holds no frames and the page needs them; make other shards with "
            "labelgen extract --frames jpeg:95 --out ANOTHER_FOLDER"
        )


def _label_facts(profile: str) -> list[dict[str, Any]]:
    """Return of each label what its values mean, and what they become in the mirror."""
    cardinality = np.array([label.cardinality for label in LABELS])
    values = np.minimum(np.arange(cardinality.max() + 1)[:, None], cardinality)
    mirrored = flip_labels(values, profile=profile).T
    return [
        {
            "name": name,
            "values": count,
            "flip": flip[: count + 1].tolist(),
            "words": ["", *(value_words(name, k, profile=profile) for k in range(1, count + 1))],
            "angles": [0.0, *(orientation_angle(k, profile=profile) for k in range(1, count + 1))]
            if name.endswith("_orientation")
            else None,
        }
        for (name, count), flip in zip(LABELS, mirrored, strict=True)
    ]


def _partition_facts(name: str, masks: np.ndarray) -> dict[str, Any]:
    blocks = [{"path": _outline(mask), "anchor": block_anchor(mask)} for mask in masks]
    return {"name": name, "blocks": blocks}


def _outline(mask: np.ndarray) -> str:
    """Return the lines through the middles of a block's outermost pixels, as an SVG path."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    corners = [contour.reshape(-1, 2) + 0.5 for contour in contours]
    return "".join(f"M{' '.join(f'{x:g},{y:g}' for x, y in line.tolist())}Z" for line in corners)


def _clip_facts(shards: Shards, i: int) -> dict[str, Any]:
    """Return what the page is told of a clip: pictures, and labels by label, then by crop."""
    video, start = shards.video(i)
    frames = shards.frames(i).reshape(-1, _ACROSS, *FRAME_SIZE, 3)
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in frames])
    labels = np.empty((len(shards.crops), len(LABELS)), np.uint8)
    labels[crop_numbers(shards.crops)] = shards.all_crops(i)
    packed = zlib.compress(np.ascontiguousarray(labels.T).tobytes(), 9)
    m = shards.motion_boundaries(i)
    return {
        "number": i,
        "video": video,
        "start": start,
        "class": shards[i].class_name,
        "energy": round(float(shards.energy[i]), 3),
        "film": _jpeg(sheet[..., ::-1]),
        "fields": {c: _jpeg(_ink(m[k : k + 2])) for c, k in _FIELDS} if m is not None else {},
        "labels": base64.b64encode(packed).decode("ascii"),
    }


def _ink(field: np.ndarray) -> np.ndarray:
    """Return M_u or M_v, (2, 128, 171), as ink on paper, (128, 171) uint8: dark where it is large.

    The largest magnitudes, one in 200, are all black.
    """
    size = np.hypot(*field)
    most = max(float(np.percentile(size, 99.5)), 1e-9)
    return (255 * (1 - np.minimum(size / most, 1))).astype(np.uint8)


def _jpeg(pixels: np.ndarray) -> str:
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data_url(encoded.tobytes(), "image/jpeg")
