from extraction import extract

from labelgen.shards.summary import summary_lines


def test_summary(videos, tmp_path):
    (videos / "bad.avi").touch()
    extract(videos, tmp_path / "s", frames="jpeg:95")
    (tmp_path / "s" / "failures.csv").write_bytes(b"what seals say is shown, not this: \xff")
    text = "\n".join(summary_lines(tmp_path / "s"))
    assert "videos: 3 of 3 shards sealed, 3 videos, 6 clips" in text
    assert "failures: 1 unopenable, 1 too_short" in text or (
        "failures: 1 too_short, 1 unopenable" in text
    )
    assert "method farneback" in text
    assert text.count("most frequent") == 28


def test_threads_count_the_same(videos, tmp_path):
    extract(videos, tmp_path / "s", clips_per_shard=1, crops="all")
    one, three = (list(summary_lines(tmp_path / "s", workers=n)) for n in (1, 3))
    assert one == three
    assert any("neighbours differ" in line for line in one)


def test_flow_is_not_listed_where_there_was_none(videos, tmp_path):
    extract(videos, tmp_path / "s", labels=False)
    assert not [line for line in summary_lines(tmp_path / "s") if line.startswith("flow")]
    extract(videos, tmp_path / "t")
    assert [line for line in summary_lines(tmp_path / "t") if line.startswith("flow")]
