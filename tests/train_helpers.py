"""Synthetic shards, written straight from the shard layout, for the trainer's tests."""

import hashlib
import json
from pathlib import Path

import cv2
import h5py
import numpy as np

from labelgen import LABELS

CARDINALITY = np.array([label.cardinality for label in LABELS])
SMALL_CROPS = np.array([(8, 29), (0, 0), (16, 59), (3, 40)], np.int16)


def random_labels(rng: np.random.Generator, clips: int, crops: int) -> np.ndarray:
    """(clips, crops, 27) uint8, each label uniform over its values."""
    return (1 + rng.random((clips, crops, 27)) * CARDINALITY).astype(np.uint8)


def bright_frames(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(clips, 16, 128, 171, 3) uint8 whose grey level tells the clip's first label."""
    level = 8 * labels[:, 0, 0].astype(int)
    frames = level[:, None, None, None, None] + rng.integers(0, 40, (len(labels), 16, 128, 171, 3))
    return frames.astype(np.uint8)


def write_shards(
    folder: Path,
    frames: np.ndarray,
    labels: np.ndarray,
    *,
    crops: np.ndarray = SMALL_CROPS,
    shards: int = 1,
    prefix: str = "toy",
    jpeg: bool = False,
    clips_per_video: int = 1,
    video_path: str = "{:04d}.avi",
    energy: np.ndarray | None = None,
    config: str = "settings",
    drop: tuple[str, ...] = (),
    filters: dict | None = None,
    fields: dict | None = None,
    profile: str = "paper",
    classes: list[tuple[str, int]] | None = None,
) -> Path:
    """Write a sealed shard directory (or add a prefix to one) and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(config.encode()).hexdigest()
    energy = np.full(len(frames), 1.0, np.float32) if energy is None else energy
    for number, rows in enumerate(np.array_split(np.arange(len(frames)), shards)):
        path = folder / f"{prefix}-{number:05d}-of-{shards:05d}.h5"
        with h5py.File(path, "w") as file:
            file.attrs.update(
                format="motion-appearance-labels", format_version=1, profile=profile,
                flow='{"method": "tvl1"}', config_hash=digest,
            )  # fmt: skip
            file["labels"] = labels[rows]
            file["crops"] = crops
            file["motion_energy"] = energy[rows]
            _write_videos(file, rows // clips_per_video, path=video_path, classes=classes)
            if jpeg:
                _write_jpeg(file, frames[rows])
            else:
                data, shape = frames[rows], frames.shape[1:]
                options = {"chunks": (1, *shape), "maxshape": (None, *shape), **(filters or {})}
                file.create_dataset("frames", data=data, **options)
            for name, values in (fields or {}).items():
                part = values[rows]
                file.create_dataset(name, data=part, chunks=(1, *part.shape[1:]), compression=1)
            for name in drop:
                del file[name]
        write_seal(path, clips=len(rows), config_hash=digest)
    _write_run(folder, prefix, shards, digest)
    return folder


def _write_videos(
    file: h5py.File, videos: np.ndarray, *, path: str, classes: list[tuple[str, int]] | None
) -> None:
    names, rows = np.unique(videos, return_inverse=True)
    file["clips/video"] = rows.astype(np.int32)
    file["videos/path"] = np.array([path.format(name) for name in names], h5py.string_dtype())
    of_class = [classes[name] if classes else ("", -1) for name in names]
    file["videos/class_name"] = np.array([name for name, _ in of_class], h5py.string_dtype())
    file["videos/class_index"] = np.array([index for _, index in of_class], np.int32)
    file["videos/frames"] = np.full(len(names), 16, np.int32)
    _, firsts = np.unique(videos, return_index=True)
    file["clips/start"] = (16 * (np.arange(len(videos)) - firsts[rows])).astype(np.int32)


def _write_jpeg(file: h5py.File, frames: np.ndarray) -> None:
    out = file.create_dataset("frames", frames.shape[:2], dtype=h5py.vlen_dtype(np.uint8))
    for clip, images in enumerate(frames):
        for t, image in enumerate(images):
            bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            out[clip, t] = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].ravel()


def write_seal(path: Path, *, clips: int, config_hash: str) -> None:
    """Seal a shard as it is now."""
    seal = {
        "format": "motion-appearance-labels", "format_version": 1, "shard": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size,
        "videos": clips, "clips": clips, "crops": 1, "config_hash": config_hash,
        "manifest_sha256": "", "failures": [],
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(seal))


def _write_run(folder: Path, prefix: str, shards: int, digest: str) -> None:
    path = folder / "run.json"
    plan = json.loads(path.read_text())["plan"] if path.exists() else {}
    run = {
        "format": "motion-appearance-labels", "format_version": 1, "config": {},
        "config_hash": digest, "versions": {}, "manifests": {}, "plan": {**plan, prefix: shards},
    }  # fmt: skip
    path.write_text(json.dumps(run))


def spoilt(folder: Path, *clips: int) -> Path:
    """Overwrite a frame of some clips of the first shard, and seal it as it is then."""
    path = min(folder.glob("*.h5"))
    with h5py.File(path, "a") as file:
        for clip in clips:
            file["frames"][clip, 4] = np.frombuffer(b"no picture", np.uint8)
        count, digest = len(file["frames"]), file.attrs["config_hash"]
    write_seal(path, clips=count, config_hash=digest)
    return folder


def toy_shards(folder: Path, clips: int = 12, *, seed: int = 0, **options) -> Path:
    """Shards whose frames tell the first motion label; all else is noise."""
    rng = np.random.default_rng(seed)
    crops = options.get("crops", SMALL_CROPS)
    labels = random_labels(rng, clips, len(crops))
    return write_shards(folder, bright_frames(labels, rng), labels, **options)


def moving_shards(folder: Path, clips: int = 12, *, seed: int = 0, **options) -> Path:
    """Shards with motion boundaries and flow that labels and frames have nothing to do with."""
    rng = np.random.default_rng(seed)
    fields = {
        "motion_boundaries": rng.normal(0, 1, (clips, 4, 128, 171)).astype(np.float16),
        "flow": rng.normal(0, 1, (clips, 15, 2, 128, 171)).astype(np.float16),
    }
    return toy_shards(folder, clips, seed=seed, **{"fields": fields, **options})


NAMES = ("dark", "bright")


def classed_shards(folder, clips=24, *, seed=0, order=None, labels=True, names=NAMES, **options):
    """Clips of two classes that differ in brightness, two clips a video."""
    rng = np.random.default_rng(seed)
    classes = np.arange(clips // 2) % 2
    told = classes if order is None else classes[order]
    level = 40 + 120 * np.repeat(classes, 2)
    frames = level[:, None, None, None, None] + rng.integers(0, 40, (clips, 16, 128, 171, 3))
    drop = () if labels else ("labels", "crops", "motion_energy")
    return write_shards(
        folder, frames.astype(np.uint8), random_labels(rng, clips, 1),
        crops=np.array([(8, 29)], np.int16), clips_per_video=2, drop=drop,
        classes=[(names[c], int(c)) for c in told], **options,
    )  # fmt: skip
