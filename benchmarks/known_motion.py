"""Clips whose motion is known: textured things that move over a moving background.

    python benchmarks/known_motion.py --data "$LABELGEN_SHARED/data" --out runs/true
    python benchmarks/known_motion.py --data "$LABELGEN_SHARED/data" --out runs/tvl1 --flow tvl1

Writes shards of three sets, `known-train`, `known-val` and `known-test`, which share no scene:
textures are first frames of real videos. One ellipse or box, or two in a quarter of the clips, goes
in one of 8 directions at up to 4 pixels a frame, with a burst of speed at a random time, and turns,
grows or is sheared a little; the camera pans by parts of a pixel. With `--flow true` labels come
from the motion that made the frames, else from the flow of a method, so that what labels lose by a
solver can be told. The frames are the same.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import random
import re
from pathlib import Path
from typing import NamedTuple

import cv2
import joblib
import numpy as np

import labelgen
from labelgen.labels.boundaries import boundary_sums, motion_energy, stored_boundaries
from labelgen.shards.folder import close_run, open_run
from labelgen.shards.plan import ShardPlan, plan_set
from labelgen.shards.settings import ExtractSettings
from labelgen.shards.writer import Clip, ShardWriter
from labelgen.video.manifest import ManifestRow, rows_digest

HEIGHT, WIDTH, FRAMES = 128, 171, 16
CLIPS = {"train": 3000, "val": 240, "test": 480}
SUFFIXES = {".avi", ".mkv", ".mp4"}
SHARE_TWO = 0.25
CHANGE = 0.01
"""Standard deviation of how things change shape per frame: opposite edges of what is rigid move
alike, and a label of their direction would be settled by the last bits."""


class Thing(NamedTuple):
    """What moves: an ellipse or a box cut out of a texture."""

    texture: np.ndarray
    corner: np.ndarray  # of the window in its texture: x, y
    centre: np.ndarray
    radii: np.ndarray
    turn: float  # radians; upright edges would have directions on the border of two bins
    box: bool
    steps: np.ndarray  # (15, 2) displacement from frame to frame
    change: np.ndarray  # (2, 2) what its shape is multiplied by from frame to frame


class Pose(NamedTuple):
    """Where a thing is at a time: x of the thing at rest lies at shape @ x + centre."""

    centre: np.ndarray
    shape: np.ndarray

    def moved(self, thing: Thing, t: int) -> Pose:
        """Return where a thing is a frame later."""
        return Pose(self.centre + thing.steps[t], thing.change @ self.shape)


def draw_thing(rng: np.random.Generator, textures: list[np.ndarray]) -> Thing:
    direction = np.pi / 4 * rng.integers(8)
    base, burst, when = rng.uniform(0.3, 1), rng.uniform(1, 3), rng.uniform(0, FRAMES - 2)
    speed = base + burst * np.exp(-(((np.arange(FRAMES - 1) - when) / 2) ** 2))
    return Thing(
        texture=textures[rng.integers(len(textures))],
        corner=rng.uniform((20, 20), (140, 100)),
        centre=rng.uniform((50, 40), (WIDTH - 50, HEIGHT - 40)),
        radii=rng.uniform(16, 32, 2),
        turn=rng.uniform(0, np.pi),
        box=bool(rng.integers(2)),
        steps=speed[:, None] * [np.cos(direction), np.sin(direction)],
        change=np.eye(2) + rng.normal(0, CHANGE, (2, 2)),
    )


def window(texture: np.ndarray, shape: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Return the frame that shows at pixel x what lies at shape @ x + corner of a texture."""
    return cv2.warpAffine(
        texture, np.column_stack([shape, corner]), (WIDTH, HEIGHT),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101,
    )  # fmt: skip


def at_rest(pose: Pose) -> np.ndarray:
    """Return (128, 171, 2) float64: which point of the thing lies at each pixel."""
    grid = np.moveaxis(np.mgrid[:HEIGHT, :WIDTH][::-1], 0, -1)
    return (grid - pose.centre) @ np.linalg.inv(pose.shape).T


def inside(thing: Thing, points: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(thing.turn), np.sin(thing.turn)
    turned = points @ [[cos, -sin], [sin, cos]]
    x, y = np.moveaxis(np.abs(turned) / thing.radii, -1, 0)
    return (np.maximum(x, y) if thing.box else np.hypot(x, y)) < 1


def texture_of(thing: Thing, pose: Pose) -> np.ndarray:
    back = np.linalg.inv(pose.shape)
    return window(thing.texture, back, thing.corner + thing.centre - back @ pose.centre)


def make_clip(rng: np.random.Generator, textures: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Frames (16, 128, 171, 3) uint8 and their flow (15, 2, 128, 171) float32."""
    things = [draw_thing(rng, textures) for _ in range(1 + (rng.random() < SHARE_TWO))]
    ground, corner = textures[rng.integers(len(textures))], rng.uniform((20, 20), (140, 100))
    pan = rng.normal(0, 0.15, 2)
    frames = np.empty((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    flow = np.empty((FRAMES - 1, 2, HEIGHT, WIDTH), np.float32)
    poses = [Pose(thing.centre, np.eye(2)) for thing in things]
    for t in range(FRAMES):
        image = window(ground, np.eye(2), corner - t * pan).astype(np.float32)
        if t < FRAMES - 1:
            flow[t] = pan[:, None, None]
        for number, (thing, pose) in enumerate(zip(things, poses, strict=True)):
            points = at_rest(pose)
            mask = inside(thing, points)
            soft = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0)[..., None]
            image += soft * (texture_of(thing, pose) - image)
            if t < FRAMES - 1:
                poses[number] = after = pose.moved(thing, t)
                shift = points[mask] @ (after.shape - pose.shape).T + thing.steps[t]
                flow[t, :, mask] = shift
        noise = rng.normal(0, 2, (HEIGHT, WIDTH, 1))
        frames[t] = np.clip(image + noise, 0, 255)
    return frames, flow


def scene_of(file: Path, groups: dict[str, str]) -> str:
    """Return what names a video's scene: its source group, or recording, or folder."""
    source = groups.get(f"{file.parent.name}/{file.name}")
    recording = re.search(r"(v_[^/]+_g\d+)_c\d+", file.name)
    return source or (recording[1] if recording else str(file.parent))


def read_textures(data: Path, name: str) -> list[np.ndarray]:
    """First frames of videos, 256x342 RGB; no scene is on two sides."""
    groups = {}
    for listed in sorted(data.rglob("groups.csv")):
        with open(listed, newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            groups |= {row["path"]: f"{listed.parent.name} {row['group']}" for row in rows}
    files = sorted(file for file in data.rglob("*") if file.suffix in SUFFIXES)
    scenes = sorted({scene_of(file, groups) for file in files})
    random.Random(0).shuffle(scenes)
    side = dict(zip(scenes, itertools.cycle(("train", "train", "val", "test")), strict=False))
    textures = []
    for file in files:
        if side[scene_of(file, groups)] == name:
            there, image = cv2.VideoCapture(str(file)).read()
            if there:
                textures.append(cv2.cvtColor(cv2.resize(image, (342, 256)), cv2.COLOR_BGR2RGB))
    return textures


def make_shard(plan: ShardPlan, data: Path, out: Path, method: str) -> None:
    cv2.setNumThreads(1)
    name = plan.rows[0].split
    textures = read_textures(data, name)
    writer = ShardWriter(out / plan.file, settings=SETTINGS, manifest_sha256=rows_digest(plan.rows))
    with writer:
        for row in plan.rows:
            rng = np.random.default_rng((list(CLIPS).index(name), int(Path(row.path).stem)))
            frames, flow = make_clip(rng, textures)
            if method != "true":
                flow = labelgen.optical_flow(frames, method=method)
            sums = boundary_sums(flow)
            labels = labelgen.clip_labels(frames, flow, "all")
            boundaries, energy = stored_boundaries(sums), motion_energy(sums)
            writer.add_clip(Clip(0, frames, labels, boundaries, energy, flow))
            writer.add_video(row, FRAMES)
        writer.seal([])


# The contract has no place for labels from known motion: what these shards say of flow holds for
# `--flow tvl1` alone.
SETTINGS = ExtractSettings(store_flow="float16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with videos, at any depth")
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--flow", default="true", help="true, or a method of labelgen's")
    parser.add_argument("--workers", type=int, default=-1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    method = options.out / "method.txt"
    if method.exists() and method.read_text() != options.flow:
        parser.error(
            f"{options.out} holds labels from {method.read_text()} flow; name another --out"
        )
    method.write_text(options.flow)
    plans = [
        plan
        for name, count in CLIPS.items()
        for plan in plan_set(
            [ManifestRow(f"{name}/{k:05d}.mkv", split=name, frames=FRAMES) for k in range(count)],
            set_name=f"known-{name}", settings=SETTINGS,
        )
    ]  # fmt: skip
    left = open_run(options.out, settings=SETTINGS, plans=plans, alone=False)
    joblib.Parallel(options.workers, verbose=5)(
        joblib.delayed(make_shard)(plan, options.data, options.out, options.flow) for plan in left
    )
    close_run(options.out, alone=False, sets={plan.set_name for plan in plans})


if __name__ == "__main__":
    main()
