import resource
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from extraction import extract

from labelgen import LABELS
from labelgen.errors import LabelgenError
from labelgen.shards.index import write_index
from labelgen.shards.verify import find_problems


@pytest.mark.parametrize("frames", ["raw", "jpeg:90", "none"])
def test_index_shows_all_shards_as_one(videos, tmp_path, frames):
    (videos / "a-first.avi").touch()
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,split\na-first.avi,one\nrun/a.avi,two\nrun/b.avi,one\n")
    extract(videos, tmp_path / "s", manifest=manifest, frames=frames, clips_per_shard=2)
    assert write_index(tmp_path / "s", tmp_path / "s" / "all.h5") == 5
    shutil.move(tmp_path / "s", tmp_path / "moved")
    files = sorted((tmp_path / "moved").glob("*-of-*.h5"))
    clip = 0
    with h5py.File(tmp_path / "moved" / "all.h5") as index:
        assert index["shards/file"].asstr()[:].tolist() == [file.name for file in files]
        # Positions are multiples of 16; (16, 32) and (0, 32) are equally near to (8, 29.5).
        assert index["crops"][:].tolist() == [[0, 32]]
        for number, file in enumerate(files):
            with h5py.File(file) as shard:
                central = shard["crops"][:].tolist().index([0, 32])
                for k in range(len(shard["clips/video"])):
                    assert index["clips/shard"][clip] == number
                    assert index["clips/row"][clip] == k
                    for name in ("motion_energy", "clips/start"):
                        assert index[name][clip] == shard[name][k]
                    expected = shard["labels"][k, central]
                    np.testing.assert_array_equal(index["labels"][clip], [expected])
                    assert (tmp_path / "moved" / index["shards/file"].asstr()[number]) == file
                    video = index["clips/video"][clip]
                    path = shard["videos/path"].asstr()[shard["clips/video"][k]]
                    assert index["videos/path"].asstr()[video] == path
                    set_name = "m-two" if path == "run/a.avi" else "m-one"
                    assert index["videos/set"].asstr()[video] == set_name
                    assert index["shards/set"].asstr()[number] == set_name
                    clip += 1
        assert clip == len(index["labels"]) == 5
        assert index.attrs["format"] == "motion-appearance-labels"
        assert index["labels"].attrs["names"].tolist() == [label.name for label in LABELS]
    assert find_problems(tmp_path / "moved")[1] == []


def test_the_index_needs_no_shard_and_refers_to_none(videos, tmp_path):
    """What HDF5 would fill with zeros, or find elsewhere, is not in it."""
    extract(videos, tmp_path / "s")
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "link.h5").touch()
    (tmp_path / "link.h5").symlink_to(tmp_path / "real" / "link.h5")
    write_index(tmp_path / "s", tmp_path / "link.h5")
    with h5py.File(tmp_path / "link.h5") as index:
        files = [tmp_path / name for name in index["shards/file"].asstr()[:]]
        assert [file.name for file in files] == sorted(file.name for file in files)
        assert all(file.is_file() for file in files)
        kinds = []
        index.visititems_links(lambda name, link: kinds.append(type(link)))
        assert set(kinds) == {h5py.HardLink}
        index.visititems(
            lambda name, item: kinds.append(isinstance(item, h5py.Dataset) and item.is_virtual)
        )
        assert True not in kinds


def test_more_shards_than_files_may_be_open(videos, tmp_path):
    """One shard is open at a time, while the index is made and while it is read."""
    extract(
        videos, tmp_path / "s", labels=False, frames="jpeg:10", clip_stride=1, clips_per_shard=1
    )
    shards = len(list((tmp_path / "s").glob("*.h5")))
    code = (
        "import sys, h5py; from pathlib import Path\n"
        "from labelgen.shards.index import write_index\n"
        "folder = Path(sys.argv[1]); write_index(folder, folder / 'all.h5')\n"
        "with h5py.File(folder / 'all.h5') as index:\n"
        "    places = zip(index['clips/shard'][:], index['clips/row'][:])\n"
        "    files = [folder / name for name in index['shards/file'].asstr()[:]]\n"
        "    sizes = [len(h5py.File(files[s])['frames'][r, 0]) for s, r in places]\n"
        "print(len(sizes), min(sizes))\n"
    )

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))

    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "s"],
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    assert done.returncode == 0, done.stderr
    clips, smallest = map(int, done.stdout.split())
    assert shards >= 3
    assert clips == 35 + 18 + 1
    assert smallest > 100


def test_index_of_an_incomplete_folder_is_refused(videos, tmp_path):
    extract(videos, tmp_path / "s")
    next(iter((tmp_path / "s").glob("*-of-*.json"))).unlink()
    with pytest.raises(LabelgenError, match="1 of 2 shards sealed"):
        write_index(tmp_path / "s", tmp_path / "all.h5")
    assert not (tmp_path / "all.h5").exists()


def test_index_over_a_shard_is_refused(videos, tmp_path):
    extract(videos, tmp_path / "s")
    with pytest.raises(LabelgenError, match="is itself a shard"):
        write_index(tmp_path / "s", tmp_path / "s" / "videos-00000-of-00002.h5")


@pytest.mark.parametrize("name", ["run.json", "videos-00000-of-00002.json", "film.avi", "all"])
def test_an_index_overwrites_nothing_else(videos, tmp_path, name):
    extract(videos, tmp_path / "s")
    with pytest.raises(LabelgenError, match=r"end it \.h5"):
        write_index(tmp_path / "s", tmp_path / "s" / name)
    assert find_problems(tmp_path / "s") == (2, [])
