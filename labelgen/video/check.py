"""Every video decoded and nothing computed: what is wrong with it, before an extraction finds out.

Frames are read as the extraction reads them (`labelgen.video.decode`), so that what is bad here is
what would stand in its ``failures.csv``, with the same reason.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

import cv2
import numpy as np

from labelgen.errors import LabelgenError, VideoError
from labelgen.geometry import CLIP_LENGTH, FRAME_SIZE, clip_count
from labelgen.processes import WorkerProcess, die_with_parent, has_parent, how_it_ended
from labelgen.progress import ProgressLine, count_text, duration
from labelgen.signals import held
from labelgen.video.decode import Video
from labelgen.video.manifest import ManifestRow, find_videos, read_manifest, write_manifest

OK, NOTE, BAD = "ok", "note", "bad"
COLUMNS = (
    *("path", "verdict", "reason", "claimed", "found"),
    *("fps", "width", "height", "clips", "seconds"),
)
_TRIES = 2
_POLL_SECONDS = 0.5
_SIGN_SECONDS = 1.0
# Between two frames of a video of constant rate, timestamps that were rounded to 10 ms included.
_STEADY = 0.35
# Levels that channels of a grey frame may differ by, after compression.
_GREY = 4
# Where containers say what their tracks hold: the mark of a video's, and of sound.
_TRACKS = {
    b"RIFF": (b"vids", b"auds"),
    b"ftyp": (b"vide", b"soun"),
    b"\x1aE\xdf\xa3": (b"V_", b"A_"),
}
_SOUND = (b"ID3", b"OggS", b"fLaC", b"\xff\xfb", b"\xff\xf3", b"\xff\xf1", b"\xff\xf9")
_LOOKED_AT = 1 << 20
_SMALL = 3


@dataclasses.dataclass(frozen=True)
class Checked:
    """What was seen of one video.

    Attributes
    ----------
    path : str
        As the manifest has it.
    verdict : str
        ``bad`` where an extraction would list it as a failure, ``note`` where it would not but
        something is worth knowing, else ``ok``.
    reason : str
        Of a bad one the reason code of ``failures.csv`` and a sentence, else the notes.
    claimed, found : int
        Frames that the header claims, and that decode.
    fps : float
        Frames per second, from the header.
    width, height : int
        Of frames as they come out, in pixels; 0 where none does.
    clips : int
        Of 16 frames, not overlapping.
    seconds : float
        That it took.
    """

    path: str
    verdict: str
    reason: str = ""
    claimed: int = 0
    found: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    clips: int = 0
    seconds: float = 0.0

    def cells(self) -> tuple[str | int, ...]:
        """Return it as a row under `COLUMNS`."""
        *before, fps, width, height, clips, seconds = dataclasses.astuple(self)
        return (*before, f"{fps:.2f}", width, height, clips, f"{seconds:.3f}")


def check_video(path: Path, *, name: str, sign: Callable[[], object] = lambda: None) -> Checked:
    """Decode a video from its first frame to its last.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        What the report calls it.
    sign : callable, optional
        Called after each frame, as a sign of life.
    """
    start = time.perf_counter()
    seen = _Seen()
    reason = ""
    try:
        with Video(path, name=name) as video:
            seen.look(video, sign)
            video.check_length(CLIP_LENGTH)
            if video.truncated:
                raise VideoError("truncated", video.truncation())
    except VideoError as error:
        more = _what_it_is(path) if error.reason == "unopenable" else ""
        reason = f"{error.reason}: {error}{more}"
    except MemoryError:
        raise
    except Exception as error:  # as in an extraction, it is this video's
        reason = f"error: {' '.join(str(error).split())}"
    notes = "; ".join(seen.notes())
    return Checked(
        path=name,
        verdict=BAD if reason else NOTE if notes else OK,
        reason=reason or notes,
        claimed=seen.claimed,
        found=seen.found,
        fps=seen.fps,
        width=seen.width,
        height=seen.height,
        clips=clip_count(seen.found, stride=CLIP_LENGTH),
        seconds=time.perf_counter() - start,
    )


class _Seen:
    """What the frames of a video and its header tell; numbers as in `Checked`."""

    def __init__(self) -> None:
        self.claimed = self.found = self.width = self.height = 0
        self.fps = 0.0
        self._rotation = 0
        self._codec = self._pixels = b""
        self._colour = False
        self._times: list[float] = []

    def look(self, video: Video, sign: Callable[[], object]) -> None:
        """Decode a video to its end."""
        self.claimed = video.claimed
        self.fps = video.header(cv2.CAP_PROP_FPS)
        self._rotation = int(video.header(cv2.CAP_PROP_ORIENTATION_META))
        self._codec = video.fourcc()
        self._pixels = _letters(video.header(cv2.CAP_PROP_CODEC_PIXEL_FORMAT))
        try:
            while (frame := video.read()) is not None:
                self._add(frame, video.header(cv2.CAP_PROP_POS_MSEC))
                sign()
        finally:
            self.found = video.decoded

    def _add(self, frame: np.ndarray, milliseconds: float) -> None:
        self.height, self.width = frame.shape[:2]
        if not self._colour and len(self._times) % CLIP_LENGTH == 0:
            self._colour = bool((np.ptp(frame, axis=2) > _GREY).any())
        self._times.append(milliseconds)

    def notes(self) -> Iterator[str]:
        """Yield what is worth knowing of a video that can be used."""
        if abs(self.claimed - self.found) > 1:
            claims = self.claimed or "no number of"
            yield f"its header claims {claims} frames, {self.found} decode"
        if self._rotation:
            yield f"rotated by {self._rotation} degrees in its metadata; frames come upright"
        if self._codec.lower() == b"gif ":
            yield "a GIF: few colours"
        if (bits := _bits(self._pixels)) > 8:
            yield f"{bits} bits per channel, read as 8"
        if self.found and not self._colour:
            yield "grey"
        if self.width % 2 or self.height % 2:
            yield f"odd size {self.width}x{self.height}"
        if self.height < FRAME_SIZE[0] / _SMALL or self.width < FRAME_SIZE[1] / _SMALL:
            yield f"small: {self.width}x{self.height}, enlarged to {FRAME_SIZE[1]}x{FRAME_SIZE[0]}"
        yield from self._rhythm()

    def _rhythm(self) -> Iterator[str]:
        between = np.diff(self._times)
        # The last frames of some files have no time.
        between = between[between > 0]
        if len(between) < 2:
            return
        usual = float(np.median(between))
        if np.abs(between - usual).max() > max(_STEADY * usual, 10):
            yield (
                f"variable frame rate: {between.min():.0f} to {between.max():.0f} ms from frame to "
                "frame"
            )


def _letters(number: float) -> bytes:
    return (int(number) & 0xFFFFFFFF).to_bytes(4, "little")


def _bits(pixels: bytes) -> int:
    """Return the bits per channel that a pixel format's tag tells, as FFmpeg writes them."""
    # Such as Y, 3, 11, 10 for chroma at half the size and 10 bits; big-endian ones are reversed.
    tag = pixels if pixels[:1] in b"YG" else pixels[::-1]
    return tag[3] if tag[:1] in (b"Y", b"G") and 8 < tag[3] <= 16 else 8


def _what_it_is(path: Path) -> str:
    """Return what a file that cannot be opened looks like, as the rest of a sentence."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(_LOOKED_AT)
            stream.seek(max(size - _LOOKED_AT, 0))
            tail = stream.read(_LOOKED_AT)
    except OSError:
        return ""
    if not size:
        return "; it is empty: 0 bytes"
    start = head[:12]
    for mark, (video, sound) in _TRACKS.items():
        if mark in start:
            return _of_container(mark, video, sound, head + tail)
    if start.startswith(_SOUND):
        return "; it is sound only"
    if not head[:_LOOKED_AT].translate(None, bytes(range(32, 256)) + b"\t\n\r\f"):
        return f"; it is text that begins {head[:40].decode(errors='replace').strip()!r}"
    return ""


def _of_container(mark: bytes, video: bytes, sound: bytes, content: bytes) -> str:
    if mark == b"ftyp" and b"moov" not in content:
        return "; its index (moov) is not there: it was cut off, or never finished"
    if video not in content and (sound in content or b"WAVEfmt" in content):
        return "; it is sound only"
    return ""


def serve(channel: int, *, parent: int) -> None:
    """Check videos until the connection closes: the life of a worker process.

    Parameters
    ----------
    channel : int
        Descriptor of the socket on which roots and paths come; back go None when it is ready and
        as a sign of life, and what was seen of each video.
    parent : int
        Process number of the parent.
    """
    die_with_parent()
    cv2.setNumThreads(1)
    with Connection(channel) as connection, suppress(EOFError, ConnectionError):
        connection.send(None)
        while has_parent(parent):
            root, name = connection.recv()
            sign = _Sign(connection)
            try:
                connection.send(check_video(root / name, name=name, sign=sign.give))
            except MemoryError:
                # A new process begins with all of its memory free.
                os._exit(errno.ENOMEM)


class _Sign:
    """Gives a sign of life, but not all the time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last = time.monotonic()

    def give(self) -> None:
        now = time.monotonic()
        if now - self._last > _SIGN_SECONDS:
            self._last = now
            self._connection.send(None)


class _Worker(WorkerProcess):
    """One process, and the video that it is on."""

    def __init__(self) -> None:
        super().__init__("labelgen.video.check")
        self.path: str | None = None
        self.ready = False
        self.heard = time.monotonic()
        self.began = self.heard

    def give(self, root: Path, path: str) -> None:
        """Let it begin a video."""
        self.path = path
        self.began = self.heard = time.monotonic()
        self.send((root, path))


class _Crew:
    """The workers of one check.

    Parameters
    ----------
    root : Path
        The data root.
    workers : int
        Processes at most, 1 or more.
    patience : float
        Seconds without a new frame after which a video is given up.
    """

    def __init__(self, root: Path, *, workers: int, patience: float) -> None:
        self._root, self._most, self._patience = root, workers, patience
        self._workers: list[_Worker] = []
        self._waiting: deque[str] = deque()
        self._deaths: Counter[str] = Counter()

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *_: object) -> None:
        with held():
            for worker in self._workers:
                worker.stop()

    def run(self, paths: Sequence[str]) -> Iterator[Checked]:
        """Yield what was seen of videos, as it comes."""
        self._waiting.extend(paths)
        while self._waiting or any(worker.path is not None for worker in self._workers):
            self._hand_out()
            ready = wait([worker.connection for worker in self._workers], _POLL_SECONDS)
            for worker in list(self._workers):
                if worker.connection in ready:
                    yield from self._hear(worker)
                elif worker.path is not None and worker.ready:
                    yield from self._wait_for(worker)

    def _hand_out(self) -> None:
        for worker in self._workers:
            if self._waiting and worker.path is None:
                worker.give(self._root, self._waiting.popleft())
        while self._waiting and len(self._workers) < self._most:
            with held():
                self._workers.append(_Worker())
            self._workers[-1].give(self._root, self._waiting.popleft())

    def _hear(self, worker: _Worker) -> Iterator[Checked]:
        try:
            said = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._bury(worker)
            return
        worker.ready, worker.heard = True, time.monotonic()
        if said is not None:
            worker.path = None
            yield said

    def _wait_for(self, worker: _Worker) -> Iterator[Checked]:
        """Give up the video of a worker that gave no sign of life for too long."""
        if time.monotonic() - worker.heard < self._patience:
            return
        what = f"not one frame in {self._patience:g} s"
        yield self._given_up(worker, f"timed_out: {worker.path}: {what}")
        self._workers.remove(worker)
        worker.stop()

    def _bury(self, worker: _Worker) -> Iterator[Checked]:
        """Take a dead worker's video back; the second time, give it up."""
        how = how_it_ended(worker.stop(patience=2.0))
        self._workers.remove(worker)
        if worker.path is None:
            return
        self._deaths[worker.path] += 1
        if self._deaths[worker.path] < _TRIES:
            self._waiting.appendleft(worker.path)
        elif not worker.ready:
            raise LabelgenError(
                f"a worker process {how} before any video, twice; run again with fewer --workers, "
                "or with --workers 0 to see why"
            )
        else:
            what = f"the worker process {how}, {_TRIES} times"
            yield self._given_up(worker, f"crashed: {worker.path}: {what}")

    def _given_up(self, worker: _Worker, reason: str) -> Checked:
        seconds = time.monotonic() - worker.began
        return Checked(worker.path or "", BAD, reason, seconds=seconds)


def check_videos(
    paths: Sequence[str], *, root: Path, workers: int, patience: float = 60.0
) -> Generator[Checked, None, None]:
    """Yield what was seen of videos, in their order; whatever a decoder does, all of them.

    Parameters
    ----------
    paths : sequence of str
        Relative to `root`, each once.
    root : Path
        The data root.
    workers : int
        Processes; 0 works in this one, where nothing guards against decoders that crash or hang.
    patience : float, optional
        Seconds without a new frame after which a video is given up.

    Raises
    ------
    LabelgenError
        If workers die before they have begun a video.
    """
    if workers == 0:
        yield from (check_video(root / path, name=path) for path in paths)
        return
    come: dict[str, Checked] = {}
    turn = iter(paths)
    due = next(turn, None)
    with _Crew(root, workers=workers, patience=patience) as crew:
        for checked in crew.run(paths):
            come[checked.path] = checked
            while due in come:
                yield come.pop(due)
                due = next(turn, None)


@dataclasses.dataclass
class CheckSummary:
    """What came of a check.

    Attributes
    ----------
    seen : Counter
        Videos by verdict.
    reasons : Counter
        Bad ones by reason code.
    clips : int
        Of those that are not bad.
    seconds : float
        Wall time.
    busy : float
        Seconds of all workers together.
    written : str
        The sentence for the manifest that was written; empty where none was.
    """

    seen: Counter[str] = dataclasses.field(default_factory=Counter)
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)
    clips: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    written: str = ""

    def add(self, checked: Checked) -> None:
        """Count one more video."""
        self.seen[checked.verdict] += 1
        self.busy += checked.seconds
        if checked.verdict == BAD:
            self.reasons[checked.reason.partition(":")[0]] += 1
        else:
            self.clips += checked.clips

    @property
    def bad(self) -> int:
        """How many are bad."""
        return self.seen[BAD]

    def lines(self) -> Iterator[str]:
        """Yield the summary for people, line by line."""
        counts = ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())
        bad = f"{self.bad} bad ({counts})" if counts else "0 bad"
        yield (
            f"{count_text(self.seen.total(), 'video')}: {self.seen[OK]} ok, {self.seen[NOTE]} with "
            f"a note, {bad}"
        )
        each = f", {1e3 * self.busy / self.clips:.1f} ms per clip and worker" if self.clips else ""
        usable = f"{count_text(self.clips, 'clip')} in those that are not bad"
        yield f"{usable}, {duration(self.seconds)}{each}"
        if self.written:
            yield self.written


def check(
    manifest: Path | None,
    *,
    root: Path,
    workers: int,
    patience: float,
    tell: Callable[[Sequence[str | int]], object],
    good: Path | None = None,
) -> CheckSummary:
    """Check the videos of a manifest, or every video below a folder, with progress.

    Parameters
    ----------
    manifest : Path or None
        The CSV file; None takes every video below `root`.
    root, workers, patience
        As in `check_videos`.
    tell : callable
        Takes `COLUMNS`, then the cells of each video, in the manifest's order.
    good : Path, optional
        Where to write the rows of videos that are not bad.

    Returns
    -------
    CheckSummary

    Raises
    ------
    LabelgenError
        If the manifest is wrong, there is no video, or `good` cannot be written.
    """
    rows = find_videos(root) if manifest is None else read_manifest(manifest, root=root)
    # One in several splits is looked at once.
    paths = list(dict.fromkeys(row.path for row in rows))
    if good is not None:
        _make_place(good)
    summary, kept, done = CheckSummary(), {}, 0
    started = time.monotonic()
    tell(COLUMNS)
    seen = check_videos(paths, root=root, workers=workers, patience=patience)
    with closing(seen), ProgressLine(lambda: done, expected=len(paths), unit="videos"):
        for checked in seen:
            done += 1
            summary.add(checked)
            tell(checked.cells())
            if checked.verdict != BAD:
                kept[checked.path] = checked.found
    summary.seconds = time.monotonic() - started
    if good is not None:
        left = [row._replace(frames=_length(row, kept)) for row in rows if row.path in kept]
        write_manifest(left, good)
        summary.written = f"{good}: {count_text(len(left), 'row')} of {len(rows)}"
    return summary


def _make_place(file: Path) -> None:
    """Make the folder of a file, and raise if it cannot be written: now, not when all is done."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabelgenError(f"cannot write {file}: {error.strerror}") from None
    if not os.access(file.parent, os.W_OK):
        raise LabelgenError(f"cannot write {file}: permission denied")


def _length(row: ManifestRow, found: Mapping[str, int]) -> int:
    # What the manifest says stays: it tells extractions whether a file was replaced since.
    return found[row.path] if row.frames < 0 else row.frames
