import os
import shutil

import h5py
from extraction import extract

from labelgen.shards.verify import find_problems


def test_verify_names_what_is_wrong(videos, tmp_path):
    out = tmp_path / "s"
    extract(videos, out)
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

    def set_label(folder):
        with h5py.File(folder / first.name, "r+") as shard:
            shard["labels"][1, 2, 0] = 17

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
    assert "is damaged" in problems_after(
        lambda f: (f / first.name).with_suffix(".json").write_text("{")
    )
    assert "was being written" in problems_after(lambda f: (f / "videos-00000-of-00002.h5.7-0011aaff.part").touch())
    assert "not in the plan" in problems_after(
        lambda f: shutil.copy(f / first.name, f / "other-00000-of-00001.h5")
    )
    assert problems_after(lambda f: None) == ""
