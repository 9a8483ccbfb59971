from extraction import extract

from labelgen.shards.times import TIMES_FILE, RunTimes, add_times, read_times


def test_what_was_written_is_read_and_damage_left_out(tmp_path):
    assert read_times(tmp_path) == []
    one, two = (
        RunTimes(3, 1.5, 2, {"flow": 1.0, "decode": 0.25}),
        RunTimes(4, 2.0, 0, {"flow": 2.0}),
    )
    add_times(tmp_path, one)
    with (tmp_path / TIMES_FILE).open("a") as stream:
        stream.write('{"clips": 1\n[]\n{}\n')
    add_times(tmp_path, two)
    assert read_times(tmp_path) == [one, two]


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path, capsys):
    add_times(tmp_path / "none", RunTimes(1, 1.0, 1, {}))
    assert "times.jsonl could not be written: No such file" in capsys.readouterr().err


def test_each_run_that_makes_clips_is_recorded(videos, tmp_path):
    extract(videos, tmp_path / "s")
    (one,) = read_times(tmp_path / "s")
    assert (one.clips, one.workers) == (6, 0)
    assert {"decode", "flow", "labels", "write"} <= one.stages.keys()
    assert 0 < sum(one.stages.values()) <= 2 * one.seconds
    extract(videos, tmp_path / "s")
    assert read_times(tmp_path / "s") == [one]
