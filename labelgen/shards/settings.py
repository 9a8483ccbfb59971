"""The settings of an extraction: frozen, hashed, and written whole into every shard."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import zlib
from typing import Any

import labelgen
from labelgen.errors import LabelgenError
from labelgen.flow.methods import DEFAULT_METHOD, FlowSettings, flow_settings
from labelgen.geometry import CLIP_LENGTH, CROP_SIZE, FRAME_SIZE
from labelgen.labels.profiles import check_profile

FRAME_FORMATS = "jpeg[:QUALITY], raw or none"

DEFAULT_QUALITY = 95

_VIDEOS = ("source", "videos")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractSettings:
    """What, besides the videos, decides every byte of a shard.

    Attributes
    ----------
    source : str
        What frames come from: ``videos``, or ``frames`` for folders of numbered images.
    labels : bool
        Whether to compute labels and motion boundaries at all.
    profile : str
        ``paper`` or ``authors``.
    flow : FlowSettings
        Method and parameters.
    crops : str
        As in `labelgen.labels.crops.crop_positions`.
    seed : int
        Of random crops.
    clip_stride : int
        Frames from one clip's start to the next one's.
    frames : str
        ``jpeg:QUALITY``, ``raw`` or ``none``.
    boundaries : bool
        Whether to store motion boundaries.
    store_flow : str
        ``none``, ``float16`` or ``float32``.
    clips_per_shard : int
        About how many clips a shard holds.

    Raises
    ------
    LabelgenError
        If a value makes no sense, alone or beside another.
    """

    source: str = "videos"
    labels: bool = True
    profile: str = "paper"
    flow: FlowSettings = dataclasses.field(default_factory=lambda: flow_settings(DEFAULT_METHOD))
    crops: str = "all"
    seed: int = 0
    clip_stride: int = CLIP_LENGTH
    frames: str = f"jpeg:{DEFAULT_QUALITY}"
    boundaries: bool = True
    store_flow: str = "none"
    clips_per_shard: int = 128

    def __post_init__(self) -> None:
        # NumPy is loaded once there are settings to check, not for a help text.
        from labelgen.labels.crops import crop_positions

        crop_positions(self.crops, seed=self.seed)
        check_profile(self.profile, self.crops)
        quality = frame_quality(self.frames)
        if quality is not None:
            # One spelling, so that jpeg and jpeg:95 are the same settings.
            object.__setattr__(self, "frames", f"jpeg:{quality}")
        for name in ("clip_stride", "clips_per_shard"):
            if getattr(self, name) < 1:
                raise LabelgenError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.labels and self.frames == "none" and self.store_flow == "none":
            raise LabelgenError("no labels, no frames and no flow leave nothing to write")

    @property
    def needs_flow(self) -> bool:
        """Whether any stored array is made from flow."""
        return self.labels or self.store_flow != "none"

    def as_dict(self) -> dict[str, Any]:
        """Return all settings, the fixed sizes included, ready for JSON."""
        values = {
            "clip_length": CLIP_LENGTH,
            "frame_size": list(FRAME_SIZE),
            "crop_size": CROP_SIZE,
            "orientation": "auto",
            **dataclasses.asdict(self),
            "flow": self.flow.as_dict(),
        }
        # Shards of videos say nothing of it, as those that were made before there was a choice.
        return {name: value for name, value in values.items() if (name, value) != _VIDEOS}

    def bytes_per_clip(self) -> int:
        """Return about how many bytes a clip takes on disk, as real videos do on average."""
        frames = 1_050_000 if self.frames == "raw" else 0
        quality = frame_quality(self.frames)
        if quality is not None:
            # Of 16 JPEGs; quality 95 takes about twice the bytes of 85.
            frames = round(175_000 * 2 ** ((quality - DEFAULT_QUALITY) / 10))
        flow = {"none": 0, "float16": 1_000_000, "float32": 2_300_000}[self.store_flow]
        return frames + flow + (155_000 if self.labels and self.boundaries else 0) + 2_000

    def digest(self) -> str:
        """Return the SHA-256 of the settings, hexadecimal."""
        return config_digest(self.as_dict())


def default_crops(profile: str) -> str:
    """Return the crops that are labelled unless others are asked for."""
    return "center" if profile == "authors" else "all"


def config_digest(config: dict[str, Any]) -> str:
    """Return the SHA-256 of settings as a run record holds them, hexadecimal."""
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def frame_quality(frames: str) -> int | None:
    """Return the JPEG quality of a frame format, None for ``raw`` and ``none``.

    Raises
    ------
    LabelgenError
        If it is no frame format.
    """
    if frames in ("raw", "none"):
        return None
    kind, _, quality = frames.partition(":")
    quality = quality or ("" if ":" in frames else str(DEFAULT_QUALITY))
    if kind == "jpeg" and quality.isdecimal() and 1 <= int(quality) <= 100:
        return int(quality)
    raise LabelgenError(f"unknown frame format {frames!r}; use {FRAME_FORMATS}, quality 1..100")


def software_versions() -> dict[str, str]:
    """Return the versions of everything that decides a shard's bytes."""
    from importlib.metadata import version

    import cv2
    import h5py

    from labelgen.kernels import sources_hash

    ffmpeg = re.search(r"avcodec: *YES \(([\d.]+)\)", cv2.getBuildInformation())
    return {
        "labelgen": labelgen.__version__,
        "kernels": sources_hash(),
        "opencv": cv2.__version__,
        "ffmpeg": ffmpeg[1] if ffmpeg else "unknown",
        "numpy": version("numpy"),
        "numba": version("numba"),
        "h5py": version("h5py"),
        "hdf5": h5py.version.hdf5_version,
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
    }
