import pytest
from extraction import extract

from labelgen.errors import LabelgenError
from labelgen.shards.plan import plan_set, sets_of
from labelgen.shards.settings import ExtractSettings
from labelgen.video.manifest import ManifestRow

SETTINGS = ExtractSettings(clips_per_shard=128)


def plans_of(frames, name="x", settings=SETTINGS):
    rows = [ManifestRow(f"{k}.mp4", frames=count) for k, count in enumerate(frames)]
    return plan_set(rows, set_name=name, settings=settings)


def test_videos_of_unknown_length_are_spread_over_shards():
    plans = plans_of([0] * 10_000)
    assert len(plans) == 79
    assert {len(plan.rows) for plan in plans} <= {126, 127, 128}
    assert plans[0].file == "x-00000-of-00079.h5"


def test_known_lengths_decide_the_shards():
    # 100 videos of 20 clips: 2000 / 128.
    plans = plans_of([320] * 100)
    assert len(plans) == 16
    assert sum(plan.clips for plan in plans) == 2000
    assert {len(plan.rows) for plan in plans} <= {6, 7}
    assert [row.path for plan in plans for row in plan.rows] == [f"{k}.mp4" for k in range(100)]


def test_too_short_videos_make_no_shard_of_their_own():
    assert len(plans_of([3] * 1000)) == 1


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "a\nb", "x" * 200, "é" * 100, "\udcff"])
def test_names_that_cannot_begin_a_file_name(videos, tmp_path, name):
    with pytest.raises(LabelgenError, match="shards cannot be called"):
        sets_of([ManifestRow("a.avi")], name=name)
    if name:
        with pytest.raises(LabelgenError, match="shards cannot be called"):
            extract(videos, tmp_path / "s", name=name)
    assert not list(tmp_path.rglob("*.h5"))


def test_the_longest_name_works(videos, tmp_path):
    assert extract(videos, tmp_path / "s", name="x" * 128).clips == 6
