"""Sizes of frames in packets, against FFmpeg's own."""

from contextlib import suppress

import cv2
import numpy as np
import pytest
from odd_videos import change

from labelgen.video import packets
from labelgen.video.decode import Video
from labelgen.video.packets import Packets

SIZES = [(96, 128), (130, 98), (96, 128), (240, 322)]


def told(path):
    with Video(path) as video:
        stream = Packets(path, video.fourcc())
        sizes = []
        while stream.left:
            size = stream.next_size()
            if size is not None and sizes[-1:] != [size]:
                sizes.append(size)
        stream.close()
    return [(height, width) for width, height in sizes]


CODECS = [
    ("a.ts", "libx264", "yuv420p"),
    ("b.ts", "libx264", "yuv444p"),
    ("c.ts", "libx264", "yuv422p10le"),
    ("d.ts", "libx265", "yuv420p"),
    ("e.ts", "libx265", "yuv444p10le"),
    ("f.ts", "mpeg2video", "yuv420p"),
    ("g.mpg", "mpeg1video", "yuv420p"),
    ("h.webm", "libvpx", "yuv420p"),
    ("i.webm", "libvpx-vp9", "yuv420p"),
    ("j.webm", "libvpx-vp9", "yuv444p"),
    ("k.avi", "mjpeg", "yuvj420p"),
]


@pytest.mark.parametrize(("name", "codec", "pixels"), CODECS)
def test_every_change_is_told(tmp_path, name, codec, pixels):
    path = change(tmp_path / name, codec, SIZES, count=3, pixels=pixels)
    assert told(path) == SIZES


def test_real_videos_tell_the_size_that_they_have(shared):
    files = [file for ending in ("mp4", "mkv") for file in (shared / "data").glob(f"*/*.{ending}")]
    for file in files:
        with Video(file) as video:
            size = [video.header(w) for w in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)]
        assert told(file) == [tuple(size)], file
    assert files


@pytest.mark.parametrize(("name", "codec", "pixels"), CODECS)
def test_packets_that_are_damaged_or_cut_off_do_no_harm(tmp_path, name, codec, pixels):
    path = change(tmp_path / name, codec, SIZES[:1], count=1, pixels=pixels)
    with Video(path) as video:
        read = packets._READERS[video.fourcc().lower()]
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    packet = capture.read()[1].tobytes()
    height, width = SIZES[0]
    assert read(packet) == (width, height)
    rng = np.random.default_rng(0)
    for length in range(200):
        damaged = bytearray(packet)
        damaged[rng.integers(min(100, len(packet)))] = rng.integers(256)
        for content in (packet[:length], bytes(damaged)):
            with suppress(IndexError):
                read(content)
