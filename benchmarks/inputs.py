"""How many labels stay the same when frames or flow come from images in place of videos.

    python benchmarks/inputs.py FOLDER_OF_VIDEOS [FOLDER_OF_VIDEOS ...]

The labels that all are compared with are those of `labelgen extract` on the videos, of all crops
for the paper's profile and of the central one for the authors'. Flow is the default, computed once
on the frames of the clip and once on those of the video. Prints a row of a table per kind of input,
with the share of equal labels of motion and of appearance.
"""

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import cv2
import h5py
import numpy as np

from labelgen.flow.compute import flow_of_grey, resized_flow
from labelgen.flow.methods import flow_settings, parse_flow
from labelgen.flow.precomputed import flow_levels
from labelgen.geometry import FRAME_SIZE
from labelgen.labels.compute import clip_labels
from labelgen.run.engines import Limits
from labelgen.run.pipeline import run
from labelgen.shards.flow_folders import export_flow
from labelgen.shards.settings import ExtractSettings
from labelgen.video.manifest import find_videos

MOTION = slice(0, 14)
APPEARANCE = slice(14, 27)
CROPS = {"paper": "all", "authors": "center"}


def extract(root, out, *, profile="paper", flow_root=None, **settings):
    """Extract quietly, and return the labels of each clip by video, without suffix, and start."""
    settings = ExtractSettings(profile=profile, crops=CROPS[profile], boundaries=False, **settings)
    with contextlib.redirect_stderr(io.StringIO()):
        run(
            None,
            root=root,
            out=out,
            name="x",
            settings=settings,
            limits=Limits(0),
            flow_root=flow_root,
        )
    return dict(clips(out, "labels"))


def clips(folder, *names):
    for file in sorted(folder.glob("*.h5")):
        with h5py.File(file) as shard:
            paths = shard["videos/path"].asstr()[:]
            for clip, video in enumerate(shard["clips/video"][:]):
                place = paths[video].rsplit(".", 1)[0], int(shard["clips/start"][clip])
                values = [shard[name][clip] for name in names]
                yield place, values[0] if len(names) == 1 else values


def source_frames(path):
    capture = cv2.VideoCapture(str(path))
    while (frame := capture.read()[1]) is not None:
        yield frame


def write_frames(videos, root, quality):
    for row in find_videos(videos):
        folder = root / row.path.rsplit(".", 1)[0]
        folder.mkdir(parents=True)
        for number, frame in enumerate(source_frames(videos / row.path), 1):
            options = [cv2.IMWRITE_JPEG_QUALITY, quality]
            cv2.imwrite(str(folder / f"frame{number:06}.jpg"), frame, options)


def write_source_flow(videos, roots):
    """Write flow of whole frames as PNG and as JPEG, and yield it as it was, resized, by video."""
    method = flow_settings("tvl1")
    for row in find_videos(videos):
        name = row.path.rsplit(".", 1)[0]
        frames = source_frames(videos / row.path)
        grey = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames]
        flow = flow_of_grey(np.stack(grey), method)
        for letter, component in zip("uv", flow.swapaxes(0, 1), strict=True):
            for suffix, root in roots.items():
                folder = root / letter / name
                folder.mkdir(parents=True)
                for number, plane in enumerate(flow_levels(component, 20.0), 1):
                    cv2.imwrite(str(folder / f"frame{number:06}.{suffix}"), plane)
        yield name, resized_flow(flow, FRAME_SIZE)


def labels_of(stored, flow, profile):
    """Label clips by their frames as stored, and flow of their videos."""
    return {
        (video, start): clip_labels(
            frames, flow[video][start : start + 15], CROPS[profile], profile=profile
        )
        for (video, start), frames in stored.items()
    }


def row(what, found, expected):
    assert found.keys() == expected.keys()
    same = np.mean([(found[place] == expected[place]).mean(axis=0) for place in expected], axis=0)
    motion, appearance = same[MOTION].mean(), same[APPEARANCE].mean()
    print(f"| {what} | {motion:.1%} | {appearance:.1%} |", flush=True)


def measure(videos, scratch):
    reference = scratch / "reference"
    expected = extract(videos, reference, frames="raw", store_flow="float32")
    stored = dict(clips(reference, "frames"))
    print(f"\n{videos.name}: {len(stored)} clips\n")
    print("| input | motion | appearance |\n| --- | --- | --- |")
    for quality in (100, 95):
        root = scratch / f"frames{quality}"
        write_frames(videos, root, quality)
        found = extract(root, scratch / f"of{quality}", source="frames")
        row(f"frames as JPEG, quality {quality}", found, expected)
    for bound in (20, 5):
        for quality in (None, 95):
            root = scratch / f"flow{bound}-{quality}"
            with contextlib.redirect_stderr(io.StringIO()):
                export_flow(reference, root, layout="denseflow", bound=bound, quality=quality)
            read = {"flow": parse_flow("precomputed", bound=bound), "flow_root": root}
            found = extract(videos, scratch / f"s{bound}-{quality}", **read)
            kind = f"JPEG, quality {quality}" if quality else "PNG"
            row(f"flow of 171x128, bound {bound}, {kind}", found, expected)
    roots = {suffix: scratch / f"whole-{suffix}" for suffix in ("png", "jpg")}
    flow = dict(write_source_flow(videos, roots))
    for profile in CROPS:
        expected = labels_of(stored, flow, profile)
        for suffix, root in roots.items():
            read = {"flow": parse_flow("precomputed"), "flow_root": root, "profile": profile}
            found = extract(videos, scratch / f"{profile}-{suffix}", **read)
            kind = "PNG" if suffix == "png" else "JPEG, quality 95"
            row(f"flow of whole frames, bound 20, {kind}; profile {profile}", found, expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("videos", type=Path, nargs="+")
    for videos in parser.parse_args().videos:
        with tempfile.TemporaryDirectory() as scratch:
            measure(videos, Path(scratch))


if __name__ == "__main__":
    main()
