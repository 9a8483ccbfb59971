import json

from extraction import extract, run_command

from labelgen.shards.claims import claimed
from labelgen.shards.plan import Part
from labelgen.shards.seal import seal_of
from labelgen.shards.status import read_status
from labelgen.shards.verify import find_problems


def status(out):
    done = run_command("status", out, "--json")
    return done.returncode, json.loads(done.stdout)


def test_a_whole_folder_is_complete(videos, tmp_path):
    out = tmp_path / "s"
    summary = extract(videos, out, clips_per_shard=1)
    code, found = status(out)
    assert code == 0
    assert found["complete"]
    part = found["sets"]["videos"]
    assert part["sealed"] == part["shards"] == summary.shards
    assert part["clips"] == summary.clips
    assert part["bytes"] == sum(file.stat().st_size for file in out.glob("*.h5"))
    assert (part["making"], part["missing"]) == ([], [])
    assert sum(part["failures"].values()) == len(summary.failures)


def test_a_folder_in_the_making_says_what_is_made_and_what_is_missing(videos, tmp_path):
    out = tmp_path / "s"
    extract(videos, out, clips_per_shard=1, part=Part(0, 2))
    left = read_status(out).sets["videos"].missing
    with claimed(out / left[0]):
        code, found = status(out)
        lines = run_command("status", out)
    part = found["sets"]["videos"]
    assert (code, found["complete"]) == (3, False)
    assert (part["making"], part["missing"]) == ([left[0]], list(left[1:]))
    assert lines.returncode == 3
    assert f"1 being made: {left[0]}" in lines.stdout
    assert "run the same extract command again" in lines.stdout


def test_a_shard_of_another_size_than_its_seal_says_is_missing(videos, tmp_path):
    out = tmp_path / "s"
    extract(videos, out)
    shard = sorted(out.glob("*.h5"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    assert read_status(out).sets["videos"].missing == (shard.name,)
    extract(videos, out)
    assert read_status(out).is_complete
    seal_of(shard).unlink()
    assert read_status(out).sets["videos"].missing == (shard.name,)


def test_what_is_no_shard_folder_is_one_sentence(tmp_path):
    done = run_command("status", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "holds no shards" in done.stderr


def test_the_plan_is_what_the_run_makes(videos, tmp_path):
    out = tmp_path / "s"
    words = (
        *("--root", videos, "--out", out, "--crops", "grid:16", "--frames", "raw"),
        *("--flow", "farneback,levels=1,iterations=1", "--clips-per-shard", "1"),
    )
    before = json.loads(run_command("plan", *words).stdout)
    assert not out.exists()
    summary = extract(videos, out, clips_per_shard=1)
    assert before["shards"] == summary.shards
    assert before["sealed"] == 0
    assert before["sets"]["videos"] == {k: v for k, v in before.items() if k != "sets"}
    after = json.loads(run_command("plan", *words).stdout)
    assert after == {**before, "sealed": before["shards"], "sets": after["sets"]}


def test_a_shard_of_other_videos_does_not_count(videos, tmp_path):
    rows = sorted(path.name for path in videos.iterdir())
    for name, chosen in (("one", rows), ("two", rows[::-1])):
        manifest = tmp_path / name / "m.csv"
        manifest.parent.mkdir()
        manifest.write_text("\n".join(["path", *chosen]) + "\n")
        extract(videos, tmp_path / name / "s", manifest=manifest, clips_per_shard=1)
    one, two = tmp_path / "one" / "s", tmp_path / "two" / "s"
    shard = sorted(one.glob("*.h5"))[0]
    for file in (shard, seal_of(shard)):
        file.write_bytes((two / file.name).read_bytes())
    assert read_status(one).sets["m"].missing == (shard.name,)
    problems = find_problems(one)[1]
    assert problems == [
        f"{shard.name}: is of other videos than are planned for it; delete it and extract again"
    ]
    extract(videos, one, manifest=tmp_path / "one" / "m.csv", clips_per_shard=1)
    assert find_problems(one)[1] == []


def test_a_plan_for_other_settings_is_refused(videos, tmp_path):
    extract(videos, tmp_path / "s", labels=False)
    words = ("--root", videos, "--out", tmp_path / "s", "--frames", "raw")
    done = run_command("plan", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "was begun with other settings" in done.stderr
