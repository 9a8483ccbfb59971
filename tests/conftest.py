"""Fixtures: optional real data, and videos and clips made on the spot."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared():
    """The folder of real data, or a skip that says where it was looked for."""
    folder = Path(os.environ.get("LABELGEN_SHARED", REPOSITORY.parent / "shared")).resolve()
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data at {folder}; set LABELGEN_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def golden(shared):
    """Real clips with the labels that they must get."""
    clips = []
    for file in sorted((shared / "golden").glob("*.npz")):
        with np.load(file) as arrays:
            clips.append({name: arrays[name] for name in arrays.files} | {"name": file.stem})
    if not clips:
        pytest.skip(f"no golden clips in {shared / 'golden'}")
    for clip in clips:
        clip["flow"] = clip["flow"].astype(np.float32)
    return clips


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium, see `browser`, or a skip that says what is missing."""
    pytest.importorskip("selenium", reason="pages are tested with the package selenium")
    import browser

    programs = shutil.which("chromium") or shutil.which("chrome"), shutil.which("chromedriver")
    if None in programs:
        pytest.skip("no Chromium to look at pages with; install chromium and chromedriver")
    window = browser.start(*programs)
    yield window
    window.driver.quit()


def random_clip(seed):
    """Frames and flow with structure at several scales, so that labels are decided by more than
    noise; blobs come and go, so that every kind of block can win."""
    rng = np.random.default_rng(seed)

    def smooth(shape):
        coarse = rng.normal(size=(*shape, 9, 12)).astype(np.float32)
        layers = [
            cv2.resize(layer, (171, 128), interpolation=cv2.INTER_CUBIC)
            for layer in coarse.reshape(-1, 9, 12)
        ]
        return np.array(layers).reshape(*shape, 128, 171)

    still, change = smooth((1, 3)), smooth((16, 3))
    pixels = 128 + 60 * still + 25 * change + rng.normal(size=(16, 3, 128, 171)) * 6
    frames = pixels.clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    flow = (2 * smooth((15, 2)) + 0.05 * rng.normal(size=(15, 2, 128, 171))).astype(np.float32)
    return np.ascontiguousarray(frames), flow


def write_video(path, frames, fps=25):
    """Write RGB frames as a Motion-JPEG AVI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def write_frames(folder, frames, *, pattern="frame{:06}.jpg", first=1, quality=100):
    """Write RGB or grey frames as images of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, first):
        bgr = frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        assert cv2.imwrite(str(folder / pattern.format(number)), bgr, options)
    return folder


def truncate(path, share):
    """Cut the end off an AVI file, whose header stands at its beginning."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def moving_square(count, *, size=(120, 160), step=2, seed=0):
    """Frames of a textured square that moves to the right over a textured background."""
    rng = np.random.default_rng(seed)
    height, width = size
    background = cv2.GaussianBlur(rng.integers(0, 90, (height, width, 3), np.uint8), (7, 7), 2)
    square = cv2.GaussianBlur(rng.integers(150, 255, (30, 30, 3), np.uint8), (5, 5), 1)
    frames = np.repeat(background[None], count, axis=0)
    for t, frame in enumerate(frames):
        left = 10 + step * t % (width - 50)
        frame[40:70, left : left + 30] = square
    return frames


@pytest.fixture
def videos(tmp_path):
    """A small folder of videos in two classes: 3 clips, 2 clips, 1 clip and a too short one."""
    root = tmp_path / "videos"
    for name, count in {
        "run/a.avi": 50,
        "run/b.avi": 33,
        "walk/c.avi": 16,
        "walk/short.avi": 9,
    }.items():
        write_video(root / name, moving_square(count, seed=count))
    return root
