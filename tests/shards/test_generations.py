"""Folders that grow: what is sealed stays, what is new is added, what is mended is made again."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import moving_square, truncate, write_video
from extraction import digests, extract, failures

from labelgen.errors import LabelgenError
from labelgen.shards.index import write_index
from labelgen.shards.seal import set_of
from labelgen.shards.verify import find_problems
from labelgen.video.manifest import ManifestRow, write_manifest


def add_video(videos, name, count=20, seed=None):
    return write_video(videos / name, moving_square(count, seed=count if seed is None else seed))


def shards_of(folder):
    return {name: digest for name, digest in digests(folder).items() if name.endswith(".h5")}


def test_new_videos_become_further_shards_and_sealed_ones_stay(videos, tmp_path):
    out = tmp_path / "s"
    extract(videos, out)
    first = shards_of(out)
    grown = [first]
    # Names that come before, between and after those that are there, and a new class.
    for names in (("climb/a.avi", "run/aa.avi"), ("zzz.avi",)):
        for name in names:
            add_video(videos, name, count=20 + len(name))
        summary = extract(videos, out, add=True)
        assert summary.shards == len(shards_of(out)) - len(grown[-1])
        assert grown[-1].items() <= shards_of(out).items()
        grown.append(shards_of(out))
    assert {set_of(Path(name))[0] for name in grown[-1]} == {"videos", "videos+1", "videos+2"}
    assert find_problems(out)[1] == []
    assert write_index(out, tmp_path / "all.h5") == 6 + 2 + 1
    # The same call again, with --add or without, has nothing left to do.
    for add in (False, True):
        assert extract(videos, out, add=add).shards == 0
    assert shards_of(out) == grown[-1]


def test_bytes_of_a_generation_depend_on_its_rows_alone(videos, tmp_path):
    rows = [ManifestRow(f"run/{name}.avi", "run", 0) for name in "ab"]
    new = [ManifestRow("walk/c.avi", "walk", 1)]
    for name, first in (("one", rows[:1]), ("both", rows)):
        for part in (first, first + new):
            write_manifest(part, tmp_path / name / "set.csv")
            extract(videos, tmp_path / name / "s", manifest=tmp_path / name / "set.csv", add=True)
    one, both = (shards_of(tmp_path / name / "s") for name in ("one", "both"))
    assert {n: d for n, d in one.items() if "+1" in n} == {
        n: d for n, d in both.items() if "+1" in n
    }


def test_classes_keep_their_numbers_and_new_ones_get_others(videos, tmp_path):
    import h5py

    extract(videos, tmp_path / "s")
    add_video(videos, "archery/a.avi")  # would be class 0 of the folder
    add_video(videos, "walk/d.avi", seed=3)
    extract(videos, tmp_path / "s", add=True)
    found = {}
    for file in (tmp_path / "s").glob("*.h5"):
        with h5py.File(file) as shard:
            names = shard["videos/class_name"].asstr()[:]
            for name, number in zip(names, shard["videos/class_index"][:], strict=True):
                assert found.setdefault(name, number) == number
    assert found == {"run": 0, "walk": 1, "archery": 2}


def test_what_is_new_is_named_where_nobody_asked_to_add_it(videos, tmp_path):
    extract(videos, tmp_path / "s")
    before = digests(tmp_path / "s")
    add_video(videos, "run/new.avi")
    with pytest.raises(
        LabelgenError, match=r"1 is new \(first: run/new.avi\) in videos; --add makes"
    ):
        extract(videos, tmp_path / "s")
    assert digests(tmp_path / "s") == before


@pytest.mark.parametrize("add", [False, True])
def test_what_is_gone_or_changed_is_named(videos, tmp_path, add):
    manifest = tmp_path / "set.csv"
    rows = [ManifestRow("run/a.avi", "run", 0), ManifestRow("walk/c.avi", "walk", 1)]
    write_manifest(rows, manifest)
    extract(videos, tmp_path / "s", manifest=manifest)
    write_manifest(rows[1:], manifest)
    with pytest.raises(LabelgenError, match=r"1 is no longer listed \(first: run/a.avi\) in set"):
        extract(videos, tmp_path / "s", manifest=manifest, add=add)
    write_manifest([rows[0]._replace(class_name="jog"), rows[1]], manifest)
    with pytest.raises(LabelgenError, match="run/a.avi in set has class_name 'jog', not 'run'"):
        extract(videos, tmp_path / "s", manifest=manifest, add=add)


def test_a_missing_video_that_was_fetched_is_made_by_retrying(videos, tmp_path):
    """Its length, unknown before, must not change which shard holds which video."""
    manifest = tmp_path / "set.csv"
    names = ["run/a.avi", "run/b.avi", "walk/c.avi", "walk/late.avi"]
    write_manifest([ManifestRow(name) for name in names], manifest)
    out = tmp_path / "s"
    extract(videos, out, manifest=manifest)
    assert failures(out)["walk/late.avi"]["reason"] == "missing"
    before = shards_of(out)
    add_video(videos, "walk/late.avi", count=70)
    assert extract(videos, out, manifest=manifest).shards == 0
    assert extract(videos, out, manifest=manifest, retry=True).shards == 1
    assert failures(out) == {}
    changed = {name for name, digest in shards_of(out).items() if before[name] != digest}
    assert len(changed) == 1
    assert find_problems(out)[1] == []
    assert extract(videos, out, manifest=manifest, retry=True).shards == 0


def test_retrying_makes_nothing_worse(videos, tmp_path):
    truncate(videos / "run" / "b.avi", 0.6)
    out = tmp_path / "s"
    extract(videos, out)
    before = digests(out)
    assert extract(videos, out, retry=True).shards >= 1
    assert digests(out) == before


def test_an_addition_that_was_interrupted_goes_on(videos, tmp_path, monkeypatch):
    out = tmp_path / "s"
    extract(videos, out)
    for number in range(3):
        add_video(videos, f"new/{number}.avi", count=40 + number)
    shutil.copytree(out, tmp_path / "whole")
    extract(videos, tmp_path / "whole", add=True)
    with pytest.raises(LabelgenError, match="more than --max-failures 0"):
        extract_with_a_missing_video(videos, out)
    assert extract(videos, out, add=True).shards > 0
    assert shards_of(out) == shards_of(tmp_path / "whole")


def extract_with_a_missing_video(videos, out):
    away = videos / "new" / "1.avi"
    away.rename(videos / "away")
    away.symlink_to(videos / "nowhere")
    try:
        extract(videos, out, add=True, max_failures=0)
    finally:
        away.unlink()
        (videos / "away").rename(away)


def test_names_that_look_like_generations_are_refused(videos, tmp_path):
    with pytest.raises(LabelgenError, match="does not end with a plus and a number"):
        extract(videos, tmp_path / "s", name="set+1")


def test_real_videos_grow_in_three_generations_and_train(shared, tmp_path):
    """A video is missing at first, and fetched between."""
    torch = pytest.importorskip("torch")
    from train import loop
    from train.device import Machine
    from train.recipe import RECIPES

    source = shared / "data" / "fights"
    names = sorted(str(p.relative_to(source)) for p in source.rglob("*") if p.suffix == ".mp4")
    names = names or sorted(str(p.relative_to(source)) for p in source.rglob("*.avi"))
    root, manifest, out = tmp_path / "videos", tmp_path / "fights.csv", tmp_path / "s"
    late = names[2]
    for number, end in enumerate((6, 9, 12)):
        for name in names[:end]:
            place = root / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists() and (name != late or number):
                place.symlink_to(source / name)
        write_manifest([ManifestRow(name) for name in names[:end]], manifest)
        extract(root, out, manifest=manifest, add=True, retry=number == 1, crops="center")
        assert (late in failures(out)) == (number == 0)
    assert find_problems(out)[1] == []
    assert len({set_of(file)[0] for file in out.glob("*.h5")}) == 3
    torch.set_num_threads(1)
    recipe = replace(RECIPES["small"], width=0.03, batch=4, epochs=1)
    loop.pretrain(
        labels=str(out), out=tmp_path / "run", val="0.2", recipe=recipe, machine=Machine("cpu")
    )
