"""The size of a video's frames as its packets tell it.

OpenCV gives all frames of a file at the size of the first, whatever their own, and does not say so.
Of the codecs whose streams do change (as calls, broadcasts and joined files do), the headers inside
the stream are read here: H.264 (ITU-T H.264, 7.3.2.1), HEVC (ITU-T H.265, 7.3.2.2), MPEG-1 and
MPEG-2 (ITU-T H.262, 6.2.2.1), VP8 (RFC 6386, 9.1), VP9 and Motion JPEG.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import cv2

Size = tuple[int, int]
"""Width and height in pixels."""

_START = b"\0\0\1"
_PROFILES_WITH_CHROMA = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
_CHROMA_STEP = {0: (1, 1), 1: (2, 2), 2: (2, 1), 3: (1, 1)}
# Markers of JPEG that begin a frame; of C0 to CF, three mean something else.
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_VP9_SRGB = 7


class Packets:
    """The packets of one video, in the order of decoding.

    Parameters
    ----------
    path : path-like
        The video file.
    codec : bytes
        The four letters of its codec.
    """

    def __init__(self, path: str | os.PathLike[str], codec: bytes) -> None:
        self._read_size = _READERS.get(codec.lower())
        self._capture = None
        if self._read_size is not None:
            options = [cv2.CAP_PROP_FORMAT, -1]
            self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, options)
        self.left = self._capture is not None

    def next_size(self) -> Size | None:
        """Take a packet, and return the size of frames if it tells one; see `left`."""
        if self._capture is None or self._read_size is None:
            return None
        self.left = self._capture.grab()
        if not self.left or not self._capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME):
            return None
        found, packet = self._capture.retrieve()
        if not found:
            return None
        try:
            return self._read_size(packet.tobytes())
        except IndexError:  # one that was cut off
            return None

    def close(self) -> None:
        """Release the file."""
        if self._capture is not None:
            self._capture.release()


class _Bits:
    """Numbers in a string of bits; IndexError at its end."""

    def __init__(self, content: bytes) -> None:
        self._value = int.from_bytes(content, "big")
        self._left = 8 * len(content)

    def take(self, count: int) -> int:
        """Return an unsigned number of so many bits."""
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._value >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        """Return an unsigned number in Exp-Golomb code; of a signed one, what codes it."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def _units(packet: bytes, *, longest: int = 256) -> list[bytes]:
    """Return the beginnings of what stands between start codes."""
    return [unit[:longest] for unit in packet.split(_START)[1:]]


def _unescaped(unit: bytes) -> _Bits:
    return _Bits(unit.replace(b"\0\0\3", b"\0\0"))


def _h264(packet: bytes) -> Size | None:
    for unit in _units(packet):
        if unit and unit[0] & 0x1F == 7:
            return _h264_parameters(_unescaped(unit[1:]))
    return None


def _h264_parameters(bits: _Bits) -> Size:
    profile, chroma = bits.take(8), 1
    bits.take(16)
    bits.golomb()
    if profile in _PROFILES_WITH_CHROMA:
        chroma = bits.golomb()
        bits.take(chroma == 3)
        bits.golomb(), bits.golomb()
        bits.take(1)
        if bits.take(1):
            _pass_scaling_lists(bits, 12 if chroma == 3 else 8)
    bits.golomb()
    _pass_order_of_pictures(bits)
    bits.golomb()
    bits.take(1)
    width, height = 16 * (bits.golomb() + 1), 16 * (bits.golomb() + 1)
    whole_frames = bits.take(1)
    bits.take(1 + (not whole_frames))
    step_x, step_y = _CHROMA_STEP.get(chroma, (1, 1))
    left, right, top, bottom = (bits.golomb() for _ in range(4)) if bits.take(1) else (0,) * 4
    fields = 2 - whole_frames
    return width - step_x * (left + right), fields * (height - step_y * (top + bottom))


def _pass_scaling_lists(bits: _Bits, count: int) -> None:
    for number in range(count):
        if not bits.take(1):
            continue
        last = following = 8
        for _ in range(16 if number < 6 else 64):
            if following:
                code = bits.golomb()
                following = (last + (-(code // 2) if code % 2 == 0 else (code + 1) // 2)) % 256
            last = following or last


def _pass_order_of_pictures(bits: _Bits) -> None:
    kind = bits.golomb()
    if kind == 0:
        bits.golomb()
    elif kind == 1:
        bits.take(1)
        bits.golomb(), bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()


def _hevc(packet: bytes) -> Size | None:
    for unit in _units(packet):
        if unit and unit[0] >> 1 & 0x3F == 33:
            return _hevc_parameters(_unescaped(unit[2:]))
    return None


def _hevc_parameters(bits: _Bits) -> Size:
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 88 + 8)
    flags = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    bits.take(2 * (8 - layers) if layers else 0)
    for profile, level in flags:
        bits.take(88 * profile + 8 * level)
    bits.golomb()
    chroma = bits.golomb()
    bits.take(chroma == 3)
    width, height = bits.golomb(), bits.golomb()
    step_x, step_y = _CHROMA_STEP.get(chroma, (1, 1))
    left, right, top, bottom = (bits.golomb() for _ in range(4)) if bits.take(1) else (0,) * 4
    return width - step_x * (left + right), height - step_y * (top + bottom)


def _mpeg(packet: bytes) -> Size | None:
    for unit in _units(packet):
        if unit[:1] == b"\xb3":
            bits = _Bits(unit[1:])
            return bits.take(12), bits.take(12)
    return None


def _vp8(packet: bytes) -> Size | None:
    if packet[0] & 1 or packet[3:6] != b"\x9d\x01\x2a":
        return None
    width, height = (int.from_bytes(packet[at : at + 2], "little") for at in (6, 8))
    return width & 0x3FFF, height & 0x3FFF


def _vp9(packet: bytes) -> Size | None:
    bits = _Bits(packet[:32])
    bits.take(2)
    profile = bits.take(1) + 2 * bits.take(1)
    bits.take(profile == 3)
    shown_again, not_key = bits.take(1), bits.take(1)
    bits.take(2)
    if shown_again or not_key or bits.take(24) != 0x498342:
        return None
    bits.take(profile >= 2)
    if bits.take(3) == _VP9_SRGB:
        bits.take(profile in (1, 3))
    else:
        bits.take(4 if profile in (1, 3) else 1)
    return bits.take(16) + 1, bits.take(16) + 1


def _jpeg(packet: bytes) -> Size | None:
    at = 2
    while packet[at] == 0xFF:
        if packet[at + 1] in _JPEG_FRAMES:
            bits = _Bits(packet[at + 5 : at + 9])
            height, width = bits.take(16), bits.take(16)
            return width, height
        at += 2 + int.from_bytes(packet[at + 2 : at + 4], "big")
    return None


_READERS: dict[bytes, Callable[[bytes], Size | None]] = {
    **dict.fromkeys((b"h264", b"avc1", b"x264"), _h264),
    **dict.fromkeys((b"hevc", b"hvc1", b"hev1"), _hevc),
    **dict.fromkeys((b"mpg1", b"mpg2"), _mpeg),
    b"vp80": _vp8,
    **dict.fromkeys((b"vp90", b"vp09"), _vp9),
    **dict.fromkeys((b"mjpg", b"jpeg"), _jpeg),
}
