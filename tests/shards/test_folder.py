import shutil
from pathlib import Path

import pytest
from extraction import extract

from labelgen.errors import LabelgenError
from labelgen.shards.folder import find_shard_folder, locked


def test_shard_folder_is_found(videos, tmp_path):
    extract(videos, tmp_path / "all" / "one", labels=False)
    assert find_shard_folder(tmp_path / "all") == tmp_path / "all" / "one"
    assert find_shard_folder(tmp_path / "all" / "one") == tmp_path / "all" / "one"
    shutil.copytree(tmp_path / "all" / "one", tmp_path / "all" / "two")
    with pytest.raises(LabelgenError, match="several shard folders; name one of .*one, .*two"):
        find_shard_folder(tmp_path / "all")
    with pytest.raises(LabelgenError, match="holds no shards"):
        find_shard_folder(Path(tmp_path / "nowhere"))


def test_a_second_run_on_the_same_folder_fails_fast(videos, tmp_path):
    with locked(tmp_path / "s"), pytest.raises(LabelgenError, match="another run is writing"):
        extract(videos, tmp_path / "s")
