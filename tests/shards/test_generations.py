"""Folders that grow: what is sealed stays, what is new is added, what is mended is made again."""

import csv
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from conftest import moving_square, truncate, write_video
from extraction import digests, extract, failures

from labelgen.errors import LabelgenError
from labelgen.shards.folder import known_rows, planned_files, read_run
from labelgen.shards.generations import arrange
from labelgen.shards.index import write_index
from labelgen.shards.seal import set_of
from labelgen.shards.summary import summary_lines
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
    away.touch()
    try:
        extract(videos, out, add=True, max_failures=0)
    finally:
        away.unlink()
        (videos / "away").rename(away)


def test_names_that_look_like_generations_are_refused(videos, tmp_path):
    with pytest.raises(LabelgenError, match="does not end with a plus and a number"):
        extract(videos, tmp_path / "s", name="set+1")


def write_rows(file, *rows):
    write_manifest([ManifestRow(*row) for row in rows], file)
    return file


def test_a_retry_takes_no_clip_away(videos, tmp_path):
    """One video of a shard was fetched, and the others are gone by now."""
    manifest = write_rows(
        tmp_path / "m.csv", ("run/a.avi",), ("run/b.avi",), ("walk/c.avi",), ("late.avi",)
    )
    out = tmp_path / "s"
    extract(videos, out, manifest=manifest, clips_per_shard=100)
    before = digests(out)
    add_video(videos, "late.avi")
    shutil.move(videos / "run", tmp_path / "away")
    for workers in (0, 2):
        summary = extract(videos, out, workers, manifest=manifest, clips_per_shard=100, retry=True)
        assert digests(out) == before
        assert (summary.shards, summary.clips, summary.in_vain) == (0, 0, True)
        assert next(summary.lines()) == (
            "m-00000-of-00001.h5 stays as it was sealed: made again, 2 videos would lose clips "
            "(first: run/a.avi, 0 instead of 3 (missing))"
        )
        assert not list(out.glob("*.part"))
    shutil.move(tmp_path / "away", videos / "run")
    summary = extract(videos, out, manifest=manifest, clips_per_shard=100, retry=True)
    assert (summary.shards, summary.clips, summary.kept) == (1, 7, [])
    assert failures(out) == {}


def test_only_what_may_pass_is_tried_again(videos, tmp_path):
    """Nothing can be done about a video that is too short."""
    out = tmp_path / "s"
    summary = extract(videos, out)
    assert failures(out)["walk/short.avi"]["reason"] == "too_short"
    assert not any("--retry-failures" in line for line in summary.lines())
    assert extract(videos, out, retry=True).shards == 0
    (videos / "walk" / "d.avi").write_text("no video")
    summary = extract(videos, out, add=True)
    assert any("--retry-failures" in line for line in summary.lines())
    assert extract(videos, out, retry=True).shards == 1


def test_a_class_has_one_number_in_all_sets(videos, tmp_path, capsys):
    out, manifest = tmp_path / "s", tmp_path / "m.csv"
    sets = [
        [("run/a.avi", "run", 5, "one"), ("walk/c.avi", "walk", 7, "one")],
        [("run/b.avi", "run", 0, "two"), ("walk/short.avi", "climb", 5, "two")],
        [("run/a.avi", "walk", -1, "three"), ("run/b.avi", "swim", -1, "three")],
        [("walk/c.avi", "swim", 8, "four"), ("run/b.avi", "climb", 8, "four")],
    ]
    for rows in sets:
        extract(videos, out, manifest=write_rows(manifest, *rows))
    found = {}
    for rows in known_rows(out).values():
        for row in rows:
            found.setdefault(row.class_name, set()).add(row.class_index)
    assert found == {"run": {5}, "walk": {7}, "climb": {8}, "swim": {-1}}
    said = [line for line in capsys.readouterr().err.splitlines() if "keeps the number" in line]
    assert said == [
        f"in {out} a class keeps the number that it had first: run is 5, listed as 0, and 1 more",
        f"in {out} a class keeps the number that it had first: swim is -1, listed as 8",
    ]


def test_classes_of_a_new_folder_are_numbered_as_listed(videos, tmp_path, capsys):
    rows = [("run/a.avi", "b", 3), ("run/b.avi", "a", -1), ("walk/c.avi", "c", 0)]
    extract(videos, tmp_path / "s", manifest=write_rows(tmp_path / "m.csv", *rows))
    assert "keeps the number" not in capsys.readouterr().err
    (kept,) = known_rows(tmp_path / "s").values()
    assert [row[:3] for row in kept] == rows


def test_many_classes_are_numbered_in_linear_time(tmp_path):
    rows = [ManifestRow(f"{n}.avi", f"class {n}", n % 7, frames=16) for n in range(50_000)]
    begun = time.perf_counter()
    arranged = arrange(tmp_path, {}, sets={"m": rows}, add=False, counted=list)
    assert time.perf_counter() - begun < 5
    assert len({row.class_index for row in arranged.generations[0].rows}) == 50_000


@pytest.mark.parametrize("how", ["gone", "other lengths", "no table"])
def test_rows_that_are_lost_are_written_again_where_the_videos_are_the_same(videos, tmp_path, how):
    out = tmp_path / "s"
    extract(videos, out)
    add_video(videos, "run/new.avi")
    extract(videos, out, add=True)
    before = digests(out)
    for name in ("videos", "videos+1"):
        file = out / f"{name}.rows.csv"
        spoil(file, how)
        sentence = f"{file.name}: is absent or was changed; put a copy of it back"
        assert [p[: len(sentence)] for p in find_problems(out)[1]] == [sentence]
        with pytest.raises(LabelgenError, match="rows.csv is absent or was changed; put a copy"):
            known_rows(out)
        assert extract(videos, out, add=True).shards == 0
        assert digests(out) == before
        spoil(file, how)
        shutil.copy(videos / "run" / "a.avi", videos / "run" / "other.avi")
        for add in (False, True):
            with pytest.raises(
                LabelgenError, match="rows.csv is absent or was changed, and the vi"
            ):
                extract(videos, out, add=add)
        (videos / "run" / "other.avi").unlink()
        extract(videos, out)
    assert digests(out) == before


def spoil(file, how):
    if how == "gone":
        file.unlink()
    else:
        lines = file.read_text().splitlines()
        changed = [f"{line.rpartition(',')[0]},999" for line in lines[1:]]
        file.write_text("\n".join(["x" if how == "no table" else lines[0], *changed]))


def test_rows_of_another_set_that_are_lost_are_named(videos, tmp_path):
    manifest = write_rows(tmp_path / "m.csv", ("run/a.avi", "run", 0, "one"))
    extract(videos, tmp_path / "s", manifest=manifest)
    (tmp_path / "s" / "m-one.rows.csv").unlink()
    write_rows(manifest, ("run/b.avi", "run", 0, "two"))
    with pytest.raises(LabelgenError, match=r"m-one\.rows\.csv is absent or was changed"):
        extract(videos, tmp_path / "s", manifest=manifest)


def test_a_folder_whose_record_vouches_for_no_rows_is_still_read(videos, tmp_path):
    out = tmp_path / "s"
    extract(videos, out)
    before = digests(out)
    record = json.loads((out / "run.json").read_text())
    del record["rows"]
    (out / "run.json").write_text(json.dumps(record))
    assert len(known_rows(out)["videos"]) == 4
    assert find_problems(out)[1] == []
    assert extract(videos, out).shards == 0
    assert digests(out) == before  # from now on it does
    (out / "run.json").write_text(json.dumps(record))
    (out / "videos.rows.csv").unlink()
    assert known_rows(out) == {}
    assert find_problems(out)[1] == []
    assert extract(videos, out).shards == 0
    assert digests(out) == before


def test_a_generation_is_numbered_after_the_last_not_by_their_count(tmp_path):
    rows = {name: [ManifestRow(f"{name}.avi", frames=16)] for name in ("m", "m+3")}
    for name, of_it in rows.items():
        write_manifest(of_it, tmp_path / f"{name}.rows.csv")
        (tmp_path / f"{name}-00000-of-00001.h5").touch()
    now = [*rows["m"], *rows["m+3"], ManifestRow("new.avi", frames=16)]
    run = {"plan": {"m": 1, "m+3": 1}}
    arranged = arrange(tmp_path, run, sets={"m": now}, add=True, counted=list)
    assert [part.name for part in arranged.generations] == ["m", "m+3", "m+4"]


@pytest.mark.parametrize("change", ["gone", "changed", "lost"])
def test_a_mistaken_addition_can_be_taken_back(videos, tmp_path, capsys, change):
    out, manifest = tmp_path / "s", tmp_path / "m.csv"
    first = [("run/a.avi", "run"), ("run/b.avi", "run")]
    extract(videos, out, manifest=write_rows(manifest, *first))
    before = digests(out)
    wrong = ("nowhere.avi", "walk")
    with pytest.raises(LabelgenError, match="more than --max-failures 0"):
        extract(videos, out, manifest=write_rows(manifest, *first, wrong), add=True, max_failures=0)
    assert (out / "m+1.rows.csv").exists()
    if change == "lost":
        (out / "m+1.rows.csv").unlink()
    capsys.readouterr()
    now = [("walk/c.avi", "walk")] if change == "changed" else []
    summary = extract(videos, out, manifest=write_rows(manifest, *first, *now), add=bool(now))
    assert f"m+1 in {out} is dropped: its rows are gone or changed" in capsys.readouterr().err
    assert summary.shards == len(now)
    assert find_problems(out)[1] == []
    assert now or digests(out) == before
    assert [row[:2] for rows in known_rows(out).values() for row in rows] == [*first, *now]


def test_an_addition_of_which_a_shard_is_sealed_stays(videos, tmp_path):
    out, manifest = tmp_path / "s", tmp_path / "m.csv"
    extract(videos, out, manifest=write_rows(manifest, ("run/a.avi",)))
    write_rows(manifest, ("run/a.avi",), ("run/b.avi",), ("walk/c.avi",))
    extract(videos, out, manifest=manifest, add=True, clips_per_shard=3)
    write_rows(manifest, ("run/a.avi",), ("run/b.avi",))
    with pytest.raises(LabelgenError, match=r"1 is no longer listed \(first: walk/c.avi\) in m"):
        extract(videos, out, manifest=manifest)


def test_generations_come_in_order_everywhere(videos, tmp_path):
    out = tmp_path / "s"
    extract(videos, out, labels=False)
    for number in range(1, 12):
        add_video(videos, f"run/new{number}.avi", count=16, seed=number)
        extract(videos, out, add=True, labels=False)
    names = ["videos", *(f"videos+{number}" for number in range(1, 12))]
    assert list(planned_files(out, read_run(out))) == names
    assert [line.split(":")[0] for line in summary_lines(out)][:12] == names
    write_index(out, tmp_path / "all.h5")
    with h5py.File(tmp_path / "all.h5") as index:
        assert list(dict.fromkeys(index["shards/set"].asstr()[:])) == names


def test_an_addition_without_a_clip_is_in_vain(videos, tmp_path):
    assert not extract(videos, tmp_path / "s").in_vain
    (videos / "run" / "new.avi").touch()
    assert extract(videos, tmp_path / "s", add=True).in_vain
    assert not extract(videos, tmp_path / "s").in_vain


def test_failures_are_told_set_by_set(videos, tmp_path):
    out, manifest = tmp_path / "s", tmp_path / "m.csv"
    rows = [("gone.avi", "", -1, split) for split in ("one", "two")]
    extract(videos, out, manifest=write_rows(manifest, *rows))
    extract(videos, out, manifest=write_rows(manifest, ("run/a.avi", "", -1, "three")))
    # A shard that no plan has.
    seal = json.loads((out / "m-one-00000-of-00001.json").read_text())
    stray = out / "m-one-00000-of-00009.h5"
    shutil.copy(out / "m-one-00000-of-00001.h5", stray)
    stray.with_suffix(".json").write_text(json.dumps(seal | {"shard": stray.name}))
    summary = extract(videos, out, manifest=manifest)
    assert summary.failures == []
    with (out / "failures.csv").open(newline="") as stream:
        found = [(record["path"], record["set"]) for record in csv.DictReader(stream)]
    assert found == [("gone.avi", "m-one"), ("gone.avi", "m-two")]


def test_real_videos_grow_in_three_generations_and_train(shared, tmp_path):
    """A video is missing at first, and fetched between."""
    torch = pytest.importorskip("torch")
    from train import loop
    from train.device import Machine
    from train.job import PretrainJob
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
    loop.learn(PretrainJob(str(out), "0.2", recipe), tmp_path / "run", machine=Machine("cpu"))


def test_videos_of_a_renamed_manifest_are_not_added_as_another_set(videos, tmp_path):
    rows = [ManifestRow("run/a.avi", "run", 0), ManifestRow("run/b.avi", "run", 0)]
    for name, end in (("small", 1), ("bigger", 2)):
        write_manifest(rows[:end], tmp_path / f"{name}.csv")
    out = tmp_path / "s"
    extract(videos, out, manifest=tmp_path / "small.csv")
    with pytest.raises(LabelgenError, match=r"holds run/a\.avi in small, .* give the --name"):
        extract(videos, out, manifest=tmp_path / "bigger.csv", add=True)
    extract(videos, out, manifest=tmp_path / "bigger.csv", add=True, name="small")
    assert sorted(read_run(out)["plan"]) == ["small", "small+1"]


def test_a_video_that_another_split_holds_is_told(videos, tmp_path, capsys):
    paths = ("run/a.avi", "run/b.avi", "walk/c.avi")
    rows = [ManifestRow(path, "x", 0, split) for path, split in zip(paths, "aab", strict=True)]
    out, file = tmp_path / "s", tmp_path / "m.csv"
    write_manifest(rows, file)
    extract(videos, out, manifest=file)
    write_manifest([*rows, ManifestRow("run/a.avi", "x", 0, "b")], file)
    extract(videos, out, manifest=file, add=True)
    assert "run/a.avi is added to m-b, and m-a holds it too" in capsys.readouterr().err


def test_class_numbers_that_do_not_hold_are_told_when_something_is_made(videos, tmp_path, capsys):
    extract(videos, tmp_path / "s")
    add_video(videos, "climb/a.avi")
    extract(videos, tmp_path / "s", add=True)
    assert "a class keeps the number that it had first" in capsys.readouterr().err
    extract(videos, tmp_path / "s")
    assert "a class keeps" not in capsys.readouterr().err


def test_a_new_split_joins_with_videos_of_another_while_that_grows(videos, tmp_path, capsys):
    rows = [ManifestRow(f"run/{name}.avi", "run", 0, "a") for name in "ab"]
    out, file = tmp_path / "s", tmp_path / "m.csv"
    write_manifest(rows[:1], file)
    extract(videos, out, manifest=file)
    write_manifest([*rows, rows[0]._replace(split="b")], file)
    extract(videos, out, manifest=file, add=True)
    assert sorted(read_run(out)["plan"]) == ["m-a", "m-a+1", "m-b"]
    assert "run/a.avi is added to m-b, and m-a holds it too" in capsys.readouterr().err


def test_other_lengths_than_were_planned_with_are_told(videos, tmp_path, capsys):
    rows = [ManifestRow("run/a.avi", frames=40), ManifestRow("run/b.avi", frames=40)]
    out, file = tmp_path / "s", tmp_path / "m.csv"
    write_manifest(rows, file)
    extract(videos, out, manifest=file)
    for frames in (40, 0, -1):
        write_manifest([rows[0]._replace(frames=frames), rows[1]], file)
        extract(videos, out, manifest=file)
        assert "is listed with" not in capsys.readouterr().err
    write_manifest([row._replace(frames=64) for row in rows], file)
    assert extract(videos, out, manifest=file).shards == 0
    told = capsys.readouterr().err
    assert f"run/a.avi in m is listed with 64 frames, and {out} was planned with 40, and 1" in told


def test_an_addition_with_shards_can_be_taken_back_by_deleting_them(videos, tmp_path):
    out = tmp_path / "s"
    extract(videos, out)
    before = digests(out)
    added = add_video(videos, "run/new.avi")
    extract(videos, out, add=True)
    added.unlink()
    with pytest.raises(LabelgenError, match=r"delete videos\+1-\* to take the addition back, or"):
        extract(videos, out)
    for file in out.glob("videos+1-*"):
        file.unlink()
    extract(videos, out)
    assert digests(out) == before
    assert find_problems(out)[1] == []
