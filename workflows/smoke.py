"""Cut the demo videos into short labelled ones, and pair them, to try everything on."""

import csv
import itertools
import sys
from pathlib import Path

import cv2

PIECE = 34  # frames: two clips and a bit
PIECES = {"train": 3, "test": 2}  # per video, from its beginning


def cut(source: Path, target: Path, first: int) -> None:
    """Write a piece of a video, small."""
    target.parent.mkdir(parents=True, exist_ok=True)
    reader = cv2.VideoCapture(str(source))
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter_fourcc(*"MJPG"), 25, (192, 144))
    for number in range(first + PIECE):
        there, frame = reader.read()
        if there and number >= first:
            writer.write(cv2.resize(frame, (192, 144), interpolation=cv2.INTER_AREA))
    writer.release()


def write_csv(path: Path, rows: list[tuple[object, ...]]) -> None:
    """Write rows, the first of which names the columns."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


def main(demo: Path, out: Path) -> None:
    """Make videos, a manifest per split, and pairs of training videos in two folds."""
    sources, first, known = sorted(demo.glob("*.mp4")), 0, []
    for split, pieces in PIECES.items():
        rows: list[tuple[object, ...]] = [("path", "class_name", "class_index")]
        for _ in range(pieces):
            for index, source in enumerate(sources):
                path = f"{source.stem}/{split}-{first}.avi"
                cut(source, out / path, first)
                rows.append((path, source.stem, index))
            first += PIECE // 2
        write_csv(out / f"{split}.csv", rows)
        known.append(rows[1:])
    videos = known[0]
    pairs: list[tuple[object, ...]] = [("first", "second", "same", "fold")]
    for number, (one, other) in enumerate(itertools.combinations(videos, 2)):
        pairs.append((one[0], other[0], int(one[1] == other[1]), number % 2))
    write_csv(out / "pairs.csv", pairs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
