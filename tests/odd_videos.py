"""Videos of kinds that OpenCV cannot write, made with FFmpeg through PyAV."""

import struct
from fractions import Fraction

import av
import numpy as np
from conftest import moving_square

SIZE = (96, 128)


def encode(path, frames, codec="libx264", *, pixels="yuv420p", times=None, rate=25, **options):
    """Write RGB frames with FFmpeg; `times` are in milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = 1
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def change(path, codec, sizes, *, count=40, pixels="yuv420p"):
    """Write a stream whose frames, (height, width) each `count` times, change their size."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = sizes[0]
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = 1
        for number, (height, width) in enumerate(sizes):
            coder = av.CodecContext.create(codec, "w")
            coder.height, coder.width, coder.pix_fmt = height, width, pixels
            coder.time_base, coder.framerate, coder.thread_count = Fraction(1, 25), 25, 1
            frames = moving_square(count, size=(height, width))
            pictures = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames]
            for packet in coded(coder, pictures):
                packet.stream, packet.time_base = stream, Fraction(1, 25)
                packet.pts += number * count
                packet.dts += number * count
                container.mux(packet)
    return path


def coded(coder, pictures):
    for number, picture in enumerate(pictures):
        picture.pts = number
        yield from coder.encode(picture)
    yield from coder.encode()


def sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def rotate(path):
    """Let the track of an MP4 file be shown a quarter turn to the right."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    one, last = 1 << 16, 1 << 30
    content[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, last)
    path.write_bytes(content)
