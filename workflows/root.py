"""Remember the folder of videos that shards are made of, and refuse another one of its name."""

import os
import sys
from pathlib import Path


def main(out: Path, root: Path) -> None:
    """Compare the root with that of a shard folder; where no run has begun in it, keep the root."""
    # As seen from here where it lies below, so that all may be moved together.
    here, place = Path.cwd().resolve(), root.resolve()
    now = str(place.relative_to(here) if place.is_relative_to(here) else place)
    file = out / ".root"
    if not (out / "run.json").exists():
        if root.is_dir():
            out.mkdir(parents=True, exist_ok=True)
            file.write_bytes(os.fsencode(f"{now}\n"))
    elif file.exists() and (there := os.fsdecode(file.read_bytes()).rstrip("\n")) != now:
        sys.exit(
            f"{out} was made of the videos below {there}, not of those below {now}: name those "
            "with DATA_ROOT, or other folders for what is made with OUT and RUN, or delete "
            f"{file} if the videos were moved"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
