import numpy as np
import pytest
from conftest import moving_square, truncate, write_video

from labelgen import read_clips
from labelgen.errors import VideoError
from labelgen.geometry import clip_count
from labelgen.video.clips import cut_clips
from labelgen.video.decode import Video, claimed_frames


def starts(clips):
    return [start for start, _ in clips]


def test_clips_of_a_video(videos):
    clips = list(read_clips(videos / "run" / "a.avi"))
    assert starts(clips) == [0, 16, 32]
    assert all(frames.shape == (16, 128, 171, 3) for _, frames in clips)
    assert all(frames.dtype == np.uint8 for _, frames in clips)


def test_frames_are_rgb_and_resized(tmp_path):
    frames = np.zeros((16, 90, 120, 3), np.uint8)
    frames[:] = (230, 120, 20)
    path = write_video(tmp_path / "orange.avi", frames)
    _, clip = next(read_clips(path, size=(30, 40)))
    assert clip.shape == (16, 30, 40, 3)
    np.testing.assert_allclose(clip.reshape(-1, 3).mean(axis=0), (230, 120, 20), atol=6)


def test_golden_frames_come_out_of_the_videos(golden, shared):
    """Decoding, resizing and channel order are those of the golden clips."""
    found = 0
    videos = {path.stem: path for path in (shared / "data").rglob("*.*")}
    for clip in golden:
        stem, start = clip["name"].rsplit("_", 1)
        paths = [path for name, path in videos.items() if name.startswith(stem)]
        for at, frames in read_clips(paths[0]):
            if at == int(start):
                difference = np.abs(frames.astype(int) - clip["frames"].astype(int))
                assert difference.max() <= 2, clip["name"]
                found += 1
    assert found == len(golden)


@pytest.mark.parametrize("stride", [1, 3, 4, 5, 9])
def test_cutting(stride):
    frames = np.arange(23, dtype=np.uint8).reshape(23, 1, 1, 1)
    clips = list(cut_clips(frames, clip_length=4, stride=stride))
    assert starts(clips) == list(range(0, 20, stride))
    assert len(clips) == clip_count(23, stride=stride, clip_length=4)
    for start, clip in clips:
        assert np.ravel(clip).tolist() == list(range(start, start + 4))


def test_only_one_clip_is_held_in_memory():
    alive = []

    def frames():
        for number in range(100):
            alive.append(number)
            yield np.zeros((1, 1, 3), np.uint8)

    clips = cut_clips(frames(), clip_length=16, stride=16)
    next(clips)
    assert len(alive) == 16


def test_reasons(tmp_path):
    (tmp_path / "empty.avi").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video at all " * 100)
    (tmp_path / "folder.avi").mkdir()
    short = write_video(tmp_path / "short.avi", moving_square(15))
    expected = {
        tmp_path / "none.avi": "missing",
        tmp_path / "folder.avi": "missing",
        tmp_path / "empty.avi": "unopenable",
        tmp_path / "text.mp4": "unopenable",
        short: "too_short",
    }
    for path, reason in expected.items():
        with pytest.raises(VideoError, match=path.name) as caught:
            list(read_clips(path))
        assert caught.value.reason == reason


def test_truncated(tmp_path):
    whole = write_video(tmp_path / "whole.avi", moving_square(48))
    assert claimed_frames(whole) == 48
    path = truncate(write_video(tmp_path / "cut.avi", moving_square(48)), 0.2)
    with pytest.raises(VideoError, match="of the 48 frames its header claims") as caught:
        list(read_clips(path))
    assert caught.value.reason == "truncated"


def test_one_missing_frame_is_normal(shared):
    for path in sorted((shared / "data" / "hmdb51").rglob("*.avi")):
        video = Video(path)
        count = sum(1 for _ in video)
        assert count == video.decoded == video.claimed - 1
        assert not video.truncated
        video.close()


def test_wrong_arguments(videos):
    with pytest.raises(ValueError, match="must be positive"):
        read_clips(videos / "run" / "a.avi", stride=0)


def test_a_path_that_is_not_utf8_is_refused_before_opencv_sees_it(tmp_path):
    file = write_video(tmp_path / "a.avi", moving_square(16))
    odd = tmp_path / "caf\udce9.avi"
    file.rename(odd)
    with pytest.raises(VideoError, match="not UTF-8; rename it"):
        list(read_clips(odd))
    assert claimed_frames(odd) == 0


def test_a_codec_that_is_not_known_here_is_named(tmp_path):
    """As AV1 is not in every OpenCV: the file plays elsewhere."""
    with Video(write_video(tmp_path / "x.avi", moving_square(20))) as video:
        with pytest.raises(VideoError, match=r"no decoder for its codec MJPG here.*ffmpeg") as told:
            video.check_length(16)
        assert told.value.reason == "unopenable"
