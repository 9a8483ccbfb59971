"""The datasets the pipeline knows: where their videos and lists lie, and what to expect of them.

Facts about a dataset stand in ``data_manifest.csv``, one row per split; here stands how each kind
of list is read. A new dataset of a known layout is a new row there and nothing here.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from joblib import cpu_count

from labelgen.errors import LabelgenError
from labelgen.files import write_csv, write_json
from labelgen.progress import count_text
from labelgen.video.decode import with_frames
from labelgen.video.frames import claimed_images, find_frame_folders, folder_names
from labelgen.video.manifest import (
    ManifestRow,
    find_videos,
    video_paths,
    write_manifest,
)

TABLE_NAME = "data_manifest.csv"
# Downloads that failed leave files of 0 to 9 kB; a clip of ten seconds is never so small.
_STUB_BYTES = {"kinetics": 10_000}
_PAIRS = "action_splits_pairs"


class DatasetSplit(NamedTuple):
    """One row of ``data_manifest.csv``.

    Attributes
    ----------
    dataset, split : str
        What the user types.
    layout : str
        How lists and folders are read: a key of `_LAYOUTS`.
    folder : str
        Where the videos lie below the data root; the root itself serves where it is absent.
    annotations : str
        The list file, or a pattern, below the data root. Empty for plain folders.
    videos, classes : int
        Expected numbers, -1 where none are known.
    source, licence : str
        Where the data comes from and under what terms.
    """

    dataset: str
    split: str
    layout: str
    folder: str
    annotations: str
    videos: int
    classes: int
    source: str
    licence: str


class SplitFound(NamedTuple):
    """What was found of one split.

    Attributes
    ----------
    split : DatasetSplit
    rows : list of ManifestRow
        The videos that are on disk.
    missing : list of str
        Listed videos that are not.
    stubs : list of str
        Listed videos that are, but as the stubs of failed downloads.
    """

    split: DatasetSplit
    rows: list[ManifestRow]
    missing: list[str]
    stubs: list[str]

    @property
    def complete(self) -> bool:
        """Whether all videos and classes are there that are expected."""
        expected = (self.split.videos, self.split.classes)
        found = (len(self.rows), len(self._classes()))
        as_many = all(want in (-1, there) for want, there in zip(expected, found, strict=True))
        return as_many and not self.missing and not self.stubs

    def _classes(self) -> set[str]:
        return {row.class_name for row in self.rows if row.class_name}

    def report(self) -> str:
        """Return one line that holds expected against found."""
        classes = self._classes()
        listed = len(self.rows + self.missing + self.stubs)
        videos = count_text(self.split.videos if self.split.videos >= 0 else listed, "video")
        line = f"{self.split.dataset} {self.split.split}: {len(self.rows)} of {videos}"
        if classes:
            expected = self.split.classes if self.split.classes >= 0 else len(classes)
            of_classes = f" of {self.split.classes}" if self.split.classes >= 0 else ""
            line += f", {len(classes)}{of_classes} class{'' if expected == 1 else 'es'}"
        if self.missing:
            line += f"; {count_text(len(self.missing), 'listed video')} not on disk"
        if self.stubs:
            line += f"; {count_text(len(self.stubs), 'stub')} of failed downloads left out"
        return line

    def left_out(self) -> Iterator[tuple[str, str]]:
        """Yield listed videos that are left out, each with the reason."""
        yield from ((path, "not on disk") for path in self.missing)
        yield from ((path, "the stub of a failed download") for path in self.stubs)


def read_table() -> list[DatasetSplit]:
    """Return every row of ``data_manifest.csv``."""
    with Path(__file__).with_name(TABLE_NAME).open(encoding="utf-8", newline="") as stream:
        return [_table_row(record) for record in csv.DictReader(stream)]


def _table_row(record: dict[str, str]) -> DatasetSplit:
    numbers = {name: int(record[name] or -1) for name in ("videos", "classes")}
    return DatasetSplit(**{**record, **numbers})  # type: ignore[arg-type]


def find_dataset(
    dataset: str,
    *,
    root: Path,
    lists: Path | None = None,
    splits: Iterable[str] = (),
    frames: bool = False,
) -> list[SplitFound]:
    """Return the videos of a dataset that are on disk, split by split.

    Parameters
    ----------
    dataset : str
        A name in ``data_manifest.csv``.
    root : Path
        The data root; manifest paths are relative to it.
    lists : Path, optional
        Folder of the official lists; by default the place the table names below `root`.
    splits : iterable of str, optional
        Names of splits; by default the first one of the table.
    frames : bool, optional
        Whether folders of frames lie there in place of videos.

    Returns
    -------
    list of SplitFound

    Raises
    ------
    LabelgenError
        If a name is unknown, the root or a list is absent, or not one listed video is there.
    """
    known = {row.split: row for row in read_table() if row.dataset == dataset}
    if not known:
        names = dict.fromkeys(row.dataset for row in read_table())
        raise LabelgenError(f"unknown dataset {dataset!r}; {TABLE_NAME} has {', '.join(names)}")
    chosen = list(splits) or [next(iter(known))]
    for name in chosen:
        if name not in known:
            raise LabelgenError(f"{dataset} has no split {name!r}; it has {', '.join(known)}")
    return [_find_split(known[name], root, lists, frames) for name in dict.fromkeys(chosen)]


def _find_split(split: DatasetSplit, root: Path, lists: Path | None, frames: bool) -> SplitFound:
    if not root.is_dir():
        # Any folder of videos has no source to get it from.
        what = f"the videos of {split.dataset} ({split.source})" if split.annotations else "videos"
        raise LabelgenError(
            f"there is no folder {root.absolute()}; name the one that holds {what} with --root "
            "(DATA_ROOT for make)"
        )
    videos = root / split.folder if (root / split.folder).is_dir() else root
    listed = _LAYOUTS[split.layout](split, videos, _list_files(split, root, lists))
    if frames:
        listed = _as_folders(split, videos, listed)
    rows, missing, stubs = [], [], []
    for path, row in listed:
        if path is None:
            missing.append(row.path)
            continue
        relative = path.relative_to(root).as_posix()
        if _is_stub(split, path):
            stubs.append(relative)
        else:
            rows.append(row._replace(path=relative, split=split.split))
    if not rows:
        names = missing + stubs
        if not names:
            raise LabelgenError(f"the lists of {split.dataset} {split.split} name no video")
        raise LabelgenError(
            f"none of the {count_text(len(names), 'video')} of {split.dataset} {split.split} is "
            f"below {videos.absolute()}, for example {names[0]}; get it from {split.source}"
        )
    return SplitFound(split, rows, missing, stubs)


def _is_stub(split: DatasetSplit, path: Path) -> bool:
    try:
        # Of a folder of frames the size says nothing.
        return path.is_file() and path.stat().st_size < _STUB_BYTES.get(split.layout, 0)
    except OSError:
        return False


def _list_files(split: DatasetSplit, root: Path, lists: Path | None) -> list[Path]:
    if not split.annotations:
        return []
    pattern = Path(split.annotations)
    folder = lists if lists is not None else root / pattern.parent
    files = sorted(folder.glob(pattern.name))
    if not files:
        raise LabelgenError(
            f"the list {pattern.name} of {split.dataset} {split.split} is not in "
            f"{folder.absolute()}; get it from {split.source}, or name its folder with --splits"
        )
    return files


Listed = Iterator[tuple[Path | None, ManifestRow]]


def _folder(split: DatasetSplit, videos: Path, files: list[Path]) -> Listed:
    """Any folder: every video below it, its class the parent folder."""
    for row in find_videos(videos):
        yield videos / row.path, row


def _ucf101(split: DatasetSplit, videos: Path, files: list[Path]) -> Listed:
    """UCF101 lists: ``Class/v_X.avi id``, ids from 1 in ``classInd.txt``; test lists have no id."""
    names = [line.split()[1] for line in _lines(_beside(files[0], "classInd.txt"))]
    index = {name: number for number, name in enumerate(names)}
    # The class folder is HandstandPushups while lists and file names also spell HandStandPushups:
    # names are compared without regard to case.
    on_disk = _index(videos, lambda path: f"{path.parent.name}/{path.name}".lower())
    for line in _lines(files[0]):
        listed = line.split()[0]
        name = listed.split("/")[0]
        if name not in index:
            raise LabelgenError(f"{files[0]}: class {name!r} is not in classInd.txt")
        yield on_disk.get(listed.lower()), ManifestRow(listed, name, index[name])


def _hmdb51(split: DatasetSplit, videos: Path, files: list[Path]) -> Listed:
    """HMDB51 lists: one per class, ``name.avi tag``; 1 is training, 2 is test, 0 is unused."""
    tag = "1" if split.split.startswith("train") else "2"
    on_disk = _index(videos, lambda path: f"{path.parent.name}/{path.name}".lower())
    for number, file in enumerate(files):
        name = file.name.rsplit("_test_split", 1)[0]
        for line in _lines(file):
            video, _, found = line.rpartition(" ")
            if found not in ("0", "1", "2"):
                raise LabelgenError(f"{file}: {line!r} does not end in 0, 1 or 2")
            if found == tag:
                row = ManifestRow(f"{name}/{video}", name, number)
                yield on_disk.get(row.path.lower()), row


def _kinetics(split: DatasetSplit, videos: Path, files: list[Path]) -> Listed:
    """Kinetics lists: CSV; files are ``<id>_<start>_<end>`` or ``<id>``, in any folders."""
    on_disk: dict[str, Path] = {}
    for path in _sorted_paths(videos):
        # One that was fetched again, in another format, beside its stub.
        if path.stem not in on_disk or _is_stub(split, on_disk[path.stem]):
            on_disk[path.stem] = path
    records = _kinetics_records(files[0])
    index = {name: number for number, name in enumerate(sorted({name for name, _, _ in records}))}
    for name, video, stem in records:
        yield on_disk.get(stem, on_disk.get(video)), ManifestRow(stem, name, index[name])


def _kinetics_records(file: Path) -> list[tuple[str, str, str]]:
    """Return of each video its class, its id and its file's name without suffix."""
    records = []
    with file.open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.DictReader(stream)
        for record in lines:
            try:
                start, end = int(record["time_start"]), int(record["time_end"])
                name, video = record["label"], record["youtube_id"]
            except (KeyError, TypeError, ValueError):
                raise LabelgenError(
                    f"{file}, line {lines.line_num}: needs the columns label, youtube_id, "
                    "time_start and time_end, the last two in whole seconds"
                ) from None
            records.append((name, video, f"{video}_{start:06d}_{end:06d}"))
    return records


def _aslan(split: DatasetSplit, videos: Path, files: list[Path]) -> Listed:
    """ASLAN: the videos that the pairs of ``View2.mat`` name, by ids of four digits; no classes."""
    on_disk = _index(videos, lambda path: path.stem)
    for number in _paired(files[0]):
        yield on_disk.get(f"{number:04d}"), ManifestRow(f"{number:04d}")


def _paired(file: Path) -> list[int]:
    """Return the ids of all videos in pairs, (pairs, 5, folds) numbers or cells, in order."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise LabelgenError(f"{file} needs the package scipy: pip install scipy") from None
    try:
        pairs = loadmat(file, variable_names=[_PAIRS])[_PAIRS]
        return sorted({int(np.asarray(number).item()) for number in pairs[:, :2].flat})
    # A damaged file raises whatever the place of the damage leads to.
    except Exception as error:
        raise LabelgenError(
            f"{file} cannot be read as ASLAN's View2.mat, with its variable {_PAIRS}: {error}"
        ) from None


def _as_folders(split: DatasetSplit, videos: Path, listed: Listed) -> Listed:
    """Folders of frames in place of videos: by class and name, or by the name if no two have it."""
    rows = find_frame_folders(videos)
    if not split.annotations:
        yield from ((videos / row.path, row) for row in rows)
        return
    paths = [PurePosixPath(row.path) for row in rows]
    often = Counter(path.name.lower() for path in paths)
    on_disk = {path.name.lower(): path for path in paths if often[path.name.lower()] == 1}
    on_disk |= {f"{path.parent.name}/{path.name}".lower(): path for path in paths}
    for _, row in listed:
        whole, name = (key.lower() for key in (folder_names(row.path) * 2)[:2])
        path = on_disk.get(whole, on_disk.get(name))
        yield None if path is None else videos / path, row


_LAYOUTS: dict[str, Callable[[DatasetSplit, Path, list[Path]], Listed]] = {
    "folder": _folder,
    "ucf101": _ucf101,
    "hmdb51": _hmdb51,
    "kinetics": _kinetics,
    "aslan": _aslan,
}


def _lines(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8-sig")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _beside(file: Path, name: str) -> Path:
    if not (file.parent / name).is_file():
        raise LabelgenError(f"{name} is not beside {file}; it names the classes")
    return file.parent / name


def _index(videos: Path, key: Callable[[Path], str]) -> dict[str, Path]:
    return {key(path): path for path in _sorted_paths(videos)}


def _sorted_paths(videos: Path) -> list[Path]:
    return sorted(videos / path for path in video_paths(videos))


def write_dataset_manifest(
    dataset: str,
    output: Path,
    *,
    root: Path,
    lists: Path | None = None,
    splits: Iterable[str] = (),
    strict: bool = False,
    frames: bool = False,
) -> list[str]:
    """Write the manifest of a dataset and return one line per split, expected against found.

    Parameters and errors are those of `find_dataset`; `output` is the CSV file. Frame counts are
    kept in a file beside it, and headers of videos that have not changed since are not read again.
    Listed videos that are left out are named in another one, with the reason. Where `strict`, any
    that is left out, and any other number than expected, is an error, and no manifest is written.
    """
    found = find_dataset(dataset, root=root, lists=lists, splits=splits, frames=frames)
    lines = _write_left_out(found, output)
    wrong = [split.report() for split in found if not split.complete]
    if strict and wrong:
        raise LabelgenError("--strict: not all is there: " + ". ".join([*wrong, *lines]))
    count = (lambda path: claimed_images(root, path)) if frames else None
    rows = _counted([row for split in found for row in split.rows], output, root=root, count=count)
    write_manifest(rows, output)
    reports = (split.report() for split in found)
    return [*reports, f"{output}: {count_text(len(rows), 'video')}", *lines]


def _write_left_out(found: list[SplitFound], output: Path) -> list[str]:
    """Name what is left out in a file beside the manifest; return a line that says so, if any."""
    # Of several splits, one that is left out of all stands there once.
    cells = list(dict.fromkeys(cell for split in found for cell in split.left_out()))
    file = output.with_suffix(".left_out.csv")
    file.unlink(missing_ok=True)
    if not cells:
        return []
    file.parent.mkdir(parents=True, exist_ok=True)
    write_csv(file, [("path", "reason"), *cells])
    return [f"{file}: all listed videos that are left out, and why"]


def _counted(
    rows: list[ManifestRow],
    output: Path,
    *,
    root: Path,
    count: Callable[[str], int] | None,
) -> list[ManifestRow]:
    """Return rows with frame counts, those of files that are known without reading headers."""
    file = output.with_suffix(".frames.json")
    known = _known_counts(file)
    # Before headers are read: a file that is replaced meanwhile is then looked at again next time.
    stamps = {row.path: _stamp(root / row.path) for row in rows}
    rows = [row._replace(frames=known.get(stamps[row.path], -1)) for row in rows]
    rows = with_frames(rows, root=root, workers=cpu_count(), count=count)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {stamps[row.path]: row.frames for row in rows if row.frames > 0})
    return rows


def _known_counts(file: Path) -> dict[str, int]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    counts = found.items() if isinstance(found, dict) else ()
    return {stamp: count for stamp, count in counts if isinstance(count, int) and count > 0}


def _stamp(file: Path) -> str:
    """Return what tells a file, as it is now, from every other; empty where there is none."""
    try:
        status = file.stat()
    except OSError:
        return ""
    times = status.st_mtime_ns, status.st_ctime_ns
    return "-".join(map(str, (status.st_dev, status.st_ino, status.st_size, *times)))
