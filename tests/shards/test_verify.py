import hashlib
import json
import os
import shutil

import h5py
import numpy as np
import pytest
from extraction import digests, extract

from labelgen.shards.seal import is_as_sealed, read_seal, seal_of
from labelgen.shards.verify import find_problems


def test_verify_names_what_is_wrong(videos, tmp_path):
    out = tmp_path / "s"
    extract(videos, out, store_flow="float16")
    first, second = sorted(out.glob("*.h5"))

    def problems_after(change):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(out, copy)
        change(copy)
        return " | ".join(find_problems(copy)[1])

    def flip_a_byte(folder):
        content = bytearray((folder / first.name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / first.name).write_bytes(content)

    def shorten(folder):
        os.truncate(folder / first.name, first.stat().st_size - 100)

    def seal_again(folder):
        """Let the seal fit: what is wrong was wrong when the shard was made."""
        seal = json.loads((folder / first.name).with_suffix(".json").read_text())
        content = (folder / first.name).read_bytes()
        seal |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        (folder / first.name).with_suffix(".json").write_text(json.dumps(seal))

    def reseal(folder, **change):
        seal = (folder / first.name).with_suffix(".json")
        seal.write_text(json.dumps(json.loads(seal.read_text()) | change))

    def set_label(folder):
        with h5py.File(folder / first.name, "r+") as shard:
            shard["labels"][1, 2, 0] = 17
        seal_again(folder)

    def swap(folder):
        (folder / first.name).replace(folder / "x")
        (folder / second.name).replace(folder / first.name)
        (folder / "x").replace(folder / second.name)

    assert "differs from its seal's SHA-256" in problems_after(flip_a_byte)
    assert "its seal says" in problems_after(shorten)
    assert "clip 1, crop 2: motion/grid/u_location is 17, not in 1..16" in problems_after(set_label)
    assert "seal" in problems_after(swap)
    assert "has no seal" in problems_after(lambda f: (f / first.name).with_suffix(".json").unlink())
    assert "planned but absent" in problems_after(lambda f: (f / first.name).unlink())
    assert "its seal says 9" in problems_after(lambda f: reseal(f, crops=9))
    for change in (
        {"format": "x"}, {"clips": "3"}, {"bytes": None}, {"failures": [{"path": "a"}]},
        {"failures": ["a"]}, {"failures": {}},
    ):  # fmt: skip
        assert "its seal" in problems_after(lambda f, c=change: reseal(f, **c)), change
    assert "is damaged" in problems_after(
        lambda f: (f / first.name).with_suffix(".json").write_text("{")
    )
    assert "was being written" in problems_after(
        lambda f: (f / "videos-00000-of-00002.h5.host~7~0011aaff.part").touch()
    )
    assert "not in the plan" in problems_after(
        lambda f: shutil.copy(f / first.name, f / "other-00000-of-00001.h5")
    )
    assert problems_after(lambda f: None) == ""

    def spoil(name, place, value):
        def change(folder):
            with h5py.File(folder / first.name, "r+") as shard:
                shard[name][place] = value
            seal_again(folder)

        return change

    assert "clip 1: motion_energy is not finite" in problems_after(
        spoil("motion_energy", 1, np.nan)
    )
    assert "clip 2: flow is not finite" in problems_after(spoil("flow", (2, 3, 0, 9, 9), np.inf))


def test_verify_in_threads_finds_the_same(videos, tmp_path):
    extract(videos, tmp_path / "s", clips_per_shard=1)
    for file in list((tmp_path / "s").glob("*.h5"))[::2]:
        with file.open("r+b") as stream:
            stream.seek(2000)
            stream.write(b"x")
    one, two = (find_problems(tmp_path / "s", workers=workers) for workers in (1, 3))
    assert one == two
    assert len(one[1]) >= 2


@pytest.mark.parametrize("spoilt", [{"failures": None}, {"format_version": 99}, None, []])
def test_a_seal_that_lacks_something_is_damaged(videos, tmp_path, spoilt):
    extract(videos, tmp_path / "s")
    whole = digests(tmp_path / "s")
    file = tmp_path / "s" / "videos-00000-of-00002.json"
    seal = json.loads(file.read_text())
    file.write_text(json.dumps(seal | spoilt if isinstance(spoilt, dict) else spoilt))
    assert any("is damaged" in problem for problem in find_problems(tmp_path / "s")[1])
    extract(videos, tmp_path / "s")
    assert digests(tmp_path / "s") == whole


def test_a_damaged_shard_is_not_opened(videos, tmp_path, monkeypatch):
    extract(videos, tmp_path / "s")
    for file in (tmp_path / "s").glob("*.h5"):
        with file.open("r+b") as stream:
            stream.seek(-1, 2)
            stream.write(b"x")
    (tmp_path / "s" / "best-of-all.h5").touch()
    monkeypatch.setattr("labelgen.shards.verify.open_shard", None)
    assert len(find_problems(tmp_path / "s")[1]) == 2


def test_a_shard_that_was_only_touched_is_as_sealed(videos, tmp_path):
    extract(videos, tmp_path / "s", labels=False)
    file = sorted((tmp_path / "s").glob("*.h5"))[0]
    later = seal_of(file).stat().st_mtime_ns + 1
    os.utime(file, ns=(later, later))
    assert is_as_sealed(file, read_seal(file))
