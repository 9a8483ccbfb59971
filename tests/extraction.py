"""Small extractions for the tests of shards and runs."""

import csv
import hashlib

from labelgen.flow.methods import flow_settings
from labelgen.run.pipeline import run
from labelgen.shards.settings import ExtractSettings

FLOW = flow_settings("farneback", {"levels": 1, "iterations": 1})


def extract(videos, out, workers=0, manifest=None, name=None, max_failures=None, **settings):
    chosen = {"flow": FLOW, "crops": "grid:16", "frames": "raw", "clips_per_shard": 3}
    return run(
        manifest,
        root=videos,
        out=out,
        name=name,
        settings=ExtractSettings(**(chosen | settings)),
        workers=workers,
        max_failures=max_failures,
    )


def digests(folder):
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
        if file.suffix in (".h5", ".json", ".csv")
    }


def failures(folder):
    with (folder / "failures.csv").open(encoding="utf-8", newline="") as stream:
        return {record["path"]: record for record in csv.DictReader(stream)}
