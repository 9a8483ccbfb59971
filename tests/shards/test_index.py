import shutil

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
    extract(videos, tmp_path / "s", frames=frames, clips_per_shard=2)
    assert write_index(tmp_path / "s", tmp_path / "s" / "all.h5") == 6
    shutil.move(tmp_path / "s", tmp_path / "moved")
    whole = tmp_path / "moved" / "all.h5"
    clip = 0
    with h5py.File(whole) as index:
        for file in sorted((tmp_path / "moved").glob("*-of-*.h5")):
            with h5py.File(file) as shard:
                for k in range(len(shard["labels"])):
                    for name in ("labels", "motion_boundaries", "motion_energy", "clips/start"):
                        np.testing.assert_array_equal(index[name][clip], shard[name][k])
                    if frames != "none":
                        for one, other in zip(
                            index["frames"][clip], shard["frames"][k], strict=True
                        ):
                            np.testing.assert_array_equal(one, other)
                    here = shard["videos/path"].asstr()[shard["clips/video"][k]]
                    assert index["videos/path"].asstr()[index["clips/video"][clip]] == here
                    clip += 1
        assert clip == len(index["labels"]) == 6
        assert index.attrs["format"] == "motion-appearance-labels"
        assert index["labels"].attrs["names"].tolist() == [label.name for label in LABELS]
    assert find_problems(tmp_path / "moved")[1] == []


def test_index_of_an_incomplete_folder_is_refused(videos, tmp_path):
    extract(videos, tmp_path / "s")
    next(iter((tmp_path / "s").glob("*-of-*.json"))).unlink()
    with pytest.raises(LabelgenError, match="1 of 2 shards are sealed"):
        write_index(tmp_path / "s", tmp_path / "all.h5")
    assert not (tmp_path / "all.h5").exists()
