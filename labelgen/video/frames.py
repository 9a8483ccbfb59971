"""Frames of one video from a folder of numbered images, in place of its file (paper, Sec. 3.4)."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from labelgen.errors import LabelgenError, VideoError
from labelgen.geometry import FRAME_SIZE
from labelgen.progress import count_text
from labelgen.video.decode import Frame, resized_frame
from labelgen.video.manifest import VIDEO_SUFFIXES, ManifestRow, checked_text, classed_rows

FLOW_PREFIXES = ("flow_x_", "flow_y_")
"""How the names of flow images begin that lie among the frames of a video."""

_IMAGE = re.compile(r"(?P<prefix>.*?)(?P<number>[0-9]+)(?P<suffix>\.(?:jpe?g|png))", re.IGNORECASE)
_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_JPEG_SIZES = bytes({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_JPEG_ALONE = bytes((0x00, 0x01, *range(0xD0, 0xDA), 0xFF))
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
# Of no frame; a decoder would fill what a damaged header promises, for half a minute.
_LARGEST_SIDE = 16384


class FrameFolder:
    """The frames of a video that lie in a folder, yielded once, in order of their numbers.

    It is used as `labelgen.video.decode.Video` is. Images are named ``frame000001.jpg`` or
    ``img_00001.png``, or with any other beginning, and counted from 1 or 0 without a gap. What
    has no such name is passed over, and so are flow images (`FLOW_PREFIXES`).

    Parameters
    ----------
    root : Path
        The folder that the folders of all videos lie in.
    path : str
        Of the video, relative; see `folder_of`.
    size : (int, int), optional
        Height and width of the frames given, in pixels.
    flow_size : str, optional
        As of `labelgen.video.decode.Video`.

    Attributes
    ----------
    name : str
        What messages call it.
    claimed : int
        Number of images.
    decoded : int
        Number of frames that were given so far.

    Raises
    ------
    VideoError
        With reason ``missing`` (no folder), ``unopenable`` (no image in it, or it may not be read)
        or ``bad_frames``: two ways of naming, or a number that is missing or stands twice.
    """

    def __init__(
        self,
        root: Path,
        path: str,
        *,
        size: tuple[int, int] = FRAME_SIZE,
        flow_size: str = "clip",
    ) -> None:
        self.name = path
        self.size = size
        self.flow_size = flow_size
        folder = folder_of(root, path)
        if folder is None:
            raise VideoError("missing", f"there is no folder of frames for {path}")
        self._images = numbered_images(folder, what=f"the frames of {path}", reason="bad_frames")
        if not self._images:
            raise VideoError(
                "unopenable", f"the folder of {path} holds no numbered .jpg, .jpeg or .png"
            )
        self.claimed = len(self._images)
        self.decoded = 0

    def __enter__(self) -> FrameFolder:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open between two frames."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames in order.

        Raises
        ------
        VideoError
            With reason ``bad_frames`` for an image that is damaged or of another size.
        """
        first: tuple[int, ...] = ()
        for image in self._images:
            frame = read_image(image, name=f"{self.name}: {image.name}", reason="bad_frames")
            first = first or frame.shape
            if frame.shape != first:
                raise VideoError(
                    "bad_frames",
                    f"{self.name}: {image.name} is {_size_text(frame.shape)}, the frames before "
                    f"it {_size_text(first)}",
                )
            self.decoded += 1
            yield resized_frame(frame, self.size, self.flow_size)

    @property
    def truncated(self) -> bool:
        """Whether far fewer frames came than were claimed; a folder that lacks some is refused."""
        return False

    def truncation(self) -> str:
        """Return the sentence that describes a truncated video."""
        return f"{self.name} gives {self.decoded} of its {self.claimed} frames"

    def check_length(self, clip_length: int) -> None:
        """Raise `VideoError` with reason ``too_short`` if there was no clip."""
        if self.decoded < clip_length:
            raise VideoError(
                "too_short",
                f"{self.name} has {count_text(self.decoded, 'frame')}, fewer than a clip's "
                f"{clip_length}",
            )


def _size_text(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"


def folder_of(root: Path, path: str) -> Path | None:
    """Return the folder that stands for a video below `root`, None if there is none.

    It has the video's path without the file's suffix: ``run/a.avi`` is ``run/a``. Where that is
    absent, the last name alone serves, since many lay all videos side by side: ``a``.
    """
    for name in folder_names(path):
        if (root / name).is_dir():
            return root / name
    return None


def folder_names(path: str) -> list[str]:
    """Return the names, relative to a root, under which the folder of a video is looked for."""
    whole = PurePosixPath(path)
    if whole.suffix.lower() in VIDEO_SUFFIXES:
        whole = whole.with_suffix("")
    return list(dict.fromkeys((whole.as_posix(), whole.name)))


def check_apart(rows: Iterable[ManifestRow], folder_of: Callable[[str], Path | None]) -> None:
    """Raise `LabelgenError` if one folder would stand for two videos."""
    by_name: dict[str, list[str]] = {}
    for path in dict.fromkeys(row.path for row in rows):
        by_name.setdefault(folder_names(path)[-1], []).append(path)
    for paths in by_name.values():
        taken: dict[Path, str] = {}
        for path in paths if len(paths) > 1 else ():
            folder = folder_of(path)
            if folder is not None and taken.setdefault(folder, path) != path:
                raise LabelgenError(
                    f"{folder} would stand for {taken[folder]} and for {path}; give each video a "
                    "folder of its own, named by its whole path without the suffix"
                )


def numbered_images(
    folder: Path, *, what: str, reason: str, prefix: str | None = None
) -> list[Path]:
    """Return the images of a folder in order of the numbers at the ends of their names.

    Parameters
    ----------
    folder : Path
        Its folders, hidden files and whatever is named otherwise are passed over.
    what, reason : str
        What messages call the images, and the code of the failure.
    prefix : str, optional
        How the wanted names begin; by default any way but `FLOW_PREFIXES`.

    Returns
    -------
    list of Path
        Empty if there is none.

    Raises
    ------
    VideoError
        If the folder cannot be listed, there are two ways of naming, or the numbers are not those
        from 0 or 1 on, each once.
    """
    found: dict[tuple[str, str], dict[int, str]] = {}
    for name in sorted(_file_names(folder, what)):
        match = _IMAGE.fullmatch(name)
        wanted = match and (
            match["prefix"] == prefix if prefix else match["prefix"] not in FLOW_PREFIXES
        )
        if match is None or not wanted:
            continue
        images = found.setdefault((match["prefix"], match["suffix"].lower()), {})
        other = images.setdefault(int(match["number"]), name)
        if other != name:
            raise VideoError(reason, f"{what}: {other!r} and {name!r} have the same number")
    if len(found) > 1:
        one, two = (next(iter(images.values())) for images in list(found.values())[:2])
        raise VideoError(
            reason, f"{what} are named in two ways, as {one!r} and {two!r}; keep one of them"
        )
    images = next(iter(found.values()), {})
    numbers = sorted(images)
    _check_numbers(numbers, what=what, reason=reason)
    return [folder / images[number] for number in numbers]


def _file_names(folder: Path, what: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and not entry.is_dir():
                    yield entry.name
    except OSError as error:
        raise VideoError("unopenable", f"{what} cannot be listed: {error.strerror}") from None


def _check_numbers(numbers: Sequence[int], *, what: str, reason: str) -> None:
    if numbers and numbers[0] > 1:
        raise VideoError(reason, f"{what} begin with number {numbers[0]}, not with 0 or 1")
    for place, number in enumerate(numbers):
        if number != numbers[0] + place:
            raise VideoError(
                reason, f"{what}: number {numbers[0] + place} is missing, {number} is there"
            )


def read_image(file: Path, *, name: str, reason: str, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Return the pixels of a JPEG or PNG file that is whole.

    Decoders, OpenCV's before version 5 among them, fill what is missing of a file that was cut off
    with grey and say nothing; so its end is looked for here.

    Parameters
    ----------
    file : Path
    name, reason : str
        What messages call it, and the code of the failure.
    flags : int, optional
        Of ``cv2.imdecode``.

    Returns
    -------
    (H, W, 3) uint8, BGR
        Or what `flags` ask for.

    Raises
    ------
    VideoError
        If it cannot be read, is cut off, absurdly large, or no image.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise VideoError(reason, f"{name} cannot be read: {error.strerror}") from None
    image = None
    if _is_whole(content):
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        except cv2.error as error:
            if error.code == cv2.Error.StsNoMem:
                raise
    if image is None:
        raise VideoError(reason, f"{name} is damaged, cut off, or no JPEG or PNG")
    return image


def _is_whole(content: bytes) -> bool:
    if content.startswith(_JPEG):
        # Neither mark can stand among the bytes of pixels; a small picture may come before them.
        whole = content.rfind(_JPEG_END) > content.rfind(_JPEG_SCAN)
    else:
        whole = content.startswith(_PNG) and _has_whole_chunks(content)
    return whole and max(_claimed_sides(content)) <= _LARGEST_SIDE


def _has_whole_chunks(content: bytes) -> bool:
    """Whether every chunk of a PNG, up to the one that ends it, has the checksum it says.

    Of some that do not, OpenCV's decoder takes half a minute to make nothing.
    """
    at = len(_PNG)
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return False
        if content[at + 4 : at + 8] == _PNG_END:
            return True
        at = end + 4
    return False


def _claimed_sides(content: bytes) -> tuple[int, ...]:
    """Return the two sides that the header of a whole JPEG or PNG claims; zeros if it does not."""
    if not content.startswith(_JPEG):
        return struct.unpack(">II", content[16:24].ljust(8, b"\0"))
    at = content.find(b"\xff", len(_JPEG))
    while 0 <= at < len(content) - 9:
        marker = content[at + 1 : at + 2]
        if marker in _JPEG_SIZES:
            return struct.unpack(">HH", content[at + 5 : at + 9])
        # Other segments are passed over by their lengths.
        length = 0 if marker in _JPEG_ALONE else int.from_bytes(content[at + 2 : at + 4], "big")
        at = content.find(b"\xff", at + (2 + length if length else 1))
    return 0, 0


def claimed_images(root: Path, path: str) -> int:
    """Return how many frames the folder of a video holds, 0 where that cannot be told."""
    try:
        return FrameFolder(root, path).claimed
    except VideoError:  # whatever is wrong with it is told when its turn comes
        return 0


def find_frame_folders(root: Path) -> list[ManifestRow]:
    """Return every folder of frames below a folder, sorted; its class is the folder it lies in.

    Links are followed, each folder is entered once, and hidden ones are passed over.

    Returns
    -------
    list of ManifestRow
        One for each folder that holds numbered images; what lies in such a folder is no other
        video. Class indices count the sorted class names.

    Raises
    ------
    LabelgenError
        If `root` is not a folder or holds no such folder.
    """
    if not root.is_dir():
        raise LabelgenError(f"{root} is not a folder; name one of frames with --frames-from")
    paths = sorted(_frame_folders(root))
    if not paths:
        raise LabelgenError(
            f"there is no folder of frames below {os.path.abspath(root)}; looked for images named "
            "like frame000001.jpg or img_00001.png"
        )
    return classed_rows(paths)


def _frame_folders(root: Path) -> Iterator[str]:
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        is_new, is_video = real not in seen, any(map(_is_frame, files)) and place != str(root)
        seen.add(real)
        if is_new and is_video:
            yield checked_text(Path(place).relative_to(root).as_posix())
        # Small pictures of frames may lie below them.
        deeper = is_new and not is_video
        folders[:] = sorted(name for name in folders if deeper and not _is_stray(name))


def _is_stray(folder: str) -> bool:
    # Synology's servers put one into every folder.
    return folder.startswith(".") or folder == "@eaDir"


def _is_frame(name: str) -> bool:
    match = None if name.startswith(".") else _IMAGE.fullmatch(name)
    return match is not None and match["prefix"] not in FLOW_PREFIXES
