import csv
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, moving_square, write_video

from labelgen.errors import LabelgenError
from labelgen.video.datasets import find_dataset, read_table, write_dataset_manifest
from labelgen.video.manifest import ManifestRow, find_videos, read_manifest, write_manifest


@pytest.fixture
def root(tmp_path):
    """A data root with two files; their content does not matter here."""
    for name in ("a/x.avi", "b/ü x.mp4"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).touch()
    return tmp_path / "root"


def manifest(tmp_path, text, encoding="utf-8"):
    file = tmp_path / "manifest.csv"
    file.write_bytes(text.encode(encoding))
    return file


def test_round_trip(root, tmp_path):
    rows = [
        ManifestRow("a/x.avi", "a", 0, "train1", 33),
        ManifestRow("b/ü x.mp4", 'odd "class", really', 7),
    ]
    write_manifest(rows, tmp_path / "new" / "m.csv")
    assert read_manifest(tmp_path / "new" / "m.csv", root=root) == rows


def test_bom_and_crlf_are_accepted(root, tmp_path):
    file = manifest(tmp_path, "path,class_name\r\na/x.avi,a\r\nb/ü x.mp4,b\r\n", "utf-8-sig")
    assert [row.path for row in read_manifest(file, root=root)] == ["a/x.avi", "b/ü x.mp4"]


def test_a_video_may_stand_in_two_splits(root, tmp_path):
    file = manifest(tmp_path, "path,split\na/x.avi,train1\na/x.avi,train2\n")
    assert len(read_manifest(file, root=root)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'path'"),
        ("video\na/x.avi\n", "has no column 'path'.*reads 'video'"),
        ("path,colour\na/x.avi,red\n", "colour"),
        ("path,path\na/x.avi,a/x.avi\n", "may stand once"),
        ("path\n", "lists no video"),
        ("path\n/etc/passwd\n", "line 2: '/etc/passwd' must be relative"),
        ("path\na/x.avi\n../root/a/x.avi\n", "line 3: .* without '..'"),
        ("path\na/x.avi\na/../a/x.avi\n", "line 3"),
        ("path\na/x.avi\nb/ü x.mp4\na/x.avi\n", "line 4: 'a/x.avi' stands in line 2 already"),
        ("path\na\\x.avi\n", "forward slashes"),
        ("path,class_index\na/x.avi,two\n", "line 2: class_index 'two' is not a whole number"),
        ("path,frames\na/x.avi,-7\n", "frames '-7'"),
        ("path,split\na/x.avi\n", "number of fields"),
        ("path\na/x.avi,b,c\n", "number of fields"),
        ('path\n"a/x.avi\n', "not CSV"),
    ],
)
def test_hostile_manifests(root, tmp_path, text, message):
    with pytest.raises(LabelgenError, match=message):
        read_manifest(manifest(tmp_path, text), root=root)


def test_links_are_the_users_choice_in_every_way_of_naming_videos(root, tmp_path):
    """As where a dataset lies on a disk of its own: ln -s /big/UCF-101 root/UCF-101."""
    big = tmp_path / "big" / "c"
    big.mkdir(parents=True)
    (big / "z.avi").touch()
    (root / "linked").symlink_to(tmp_path / "big")
    (root / "a" / "back").symlink_to(root)
    (tmp_path / "other.avi").touch()
    (root / "one.avi").symlink_to(tmp_path / "other.avi")
    paths = ["a/x.avi", "b/ü x.mp4", "linked/c/z.avi", "one.avi"]
    assert [row.path for row in find_videos(root)] == paths
    write_dataset_manifest("folder", tmp_path / "m.csv", root=root)
    assert [row.path for row in read_manifest(tmp_path / "m.csv", root=root)] == paths


@pytest.mark.parametrize("relative", [False, True])
def test_a_video_has_one_name_however_many_links_lead_to_it(
    tmp_path, monkeypatch, capsys, relative
):
    root = tmp_path / "root"
    for name in ("fight/0.mp4", "fight/deep/1.mp4", "walk/2.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "3.mp4").touch()
    for link, target in {
        "best": root / "fight",  # before fight in order, and only a link
        "again.mp4": root / "walk" / "2.mp4",
        "walk/up": tmp_path,
        "fight/round": root,
        "b": tmp_path / "away",
        "c": tmp_path / "away",
        "gone.mp4": root / "nowhere",
        "self.mp4": root / "self.mp4",
    }.items():
        (root / link).symlink_to(target)
    (root / "walk" / "twin.mp4").hardlink_to(root / "walk" / "2.mp4")
    monkeypatch.chdir(root)
    found = [row.path for row in find_videos("." if relative else root)]
    assert found == ["b/3.mp4", "fight/0.mp4", "fight/deep/1.mp4", "walk/2.mp4"]
    told = capsys.readouterr().err
    assert "6 listed by another name" in told
    assert "2 linked to nothing" in told


def test_nested_links_take_no_time(tmp_path):
    """Two links each at 30 levels: a thousand million paths to one video."""
    for level in range(30):
        (tmp_path / f"{level}").mkdir()
        for name in "ab":
            (tmp_path / f"{level}" / name).symlink_to(tmp_path / f"{level + 1}")
    (tmp_path / "30").mkdir()
    (tmp_path / "30" / "x.avi").touch()
    assert [row.path for row in find_videos(tmp_path / "0")] == ["/".join("a" * 30) + "/x.avi"]


@pytest.mark.parametrize(
    "name", ["a\rb.avi", "a\nb.avi", "a\r\nb.avi", '"a".avi', "a,b.avi", " a .avi", "\r", "\ufeffa"]
)
def test_every_name_that_a_file_can_have_comes_back(root, tmp_path, name):
    rows = [ManifestRow("a/x.avi", name), ManifestRow(name, "a", 3, "one", 0), ManifestRow("b")]
    write_manifest(rows, tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.csv", root=root) == rows


def test_unreadable_manifests(root, tmp_path):
    with pytest.raises(LabelgenError, match="none.csv does not exist"):
        read_manifest(tmp_path / "none.csv", root=root)
    with pytest.raises(LabelgenError, match="UTF-8"):
        read_manifest(manifest(tmp_path, "path\nü.avi\n", "latin-1"), root=root)
    with pytest.raises(LabelgenError, match="nowhere is not a folder"):
        read_manifest(manifest(tmp_path, "path\na/x.avi\n"), root=root / "nowhere")


def test_folder(root):
    (root / "c.MKV").touch()
    (root / "notes.txt").touch()
    (root / ".hidden").mkdir()
    (root / ".hidden" / "y.avi").touch()
    assert find_videos(root) == [
        ManifestRow("a/x.avi", "a", 0),
        ManifestRow("b/ü x.mp4", "b", 1),
        ManifestRow("c.MKV", "", -1),
    ]
    (root / "empty").mkdir()
    with pytest.raises(LabelgenError, match=r"no video below .*empty; looked for .*\.avi"):
        find_videos(root / "empty")


def ucf101(tmp_path, names):
    root = tmp_path / "ucf"
    for name in names:
        (root / "UCF-101" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "UCF-101" / name).touch()
    return root


def touch(files):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_ucf101_official_lists(shared, tmp_path):
    lists = shared / "data" / "splits" / "ucf101"
    names = {
        line.split()[0]
        for file in lists.glob("*list0?.txt")
        for line in file.read_text().splitlines()
    }
    root = ucf101(tmp_path, names)
    splits = [f"{what}{number}" for number in (1, 2, 3) for what in ("train", "test")]
    found = find_dataset("ucf101", root=root, lists=lists, splits=splits)
    assert [len(split.rows) for split in found] == [9537, 3783, 9586, 3734, 9624, 3696]
    for split in found:
        assert split.complete
        assert {row.class_index for row in split.rows} == set(range(101))
        expected = f"{len(split.rows)} of {len(split.rows)} videos, 101 of 101 classes"
        assert split.report() == f"ucf101 {split.split.split}: {expected}"


def test_handstand_pushups_are_found_however_spelled(tmp_path):
    root = ucf101(tmp_path, ["HandstandPushups/v_HandstandPushups_g01_c01.avi"])
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_bytes(b"1 HandstandPushups\r\n")
    (lists / "trainlist01.txt").write_bytes(
        b"HandstandPushups/v_HandStandPushups_g01_c01.avi 1\r\nHandstandPushups/v_gone.avi 1\r\n"
    )
    (found,) = find_dataset("ucf101", root=root)
    assert [row.path for row in found.rows] == [
        "UCF-101/HandstandPushups/v_HandstandPushups_g01_c01.avi"
    ]
    assert "1 listed video not on disk" in (found.report())


def test_hmdb51_official_lists(shared, tmp_path):
    lists = shared / "data" / "splits" / "hmdb51"
    touch(
        tmp_path / "hmdb51_org" / file.name.split("_test_split")[0] / line.split()[0]
        for file in lists.glob("*_test_split?.txt")
        for line in file.read_text().splitlines()
        if line.strip()
    )
    splits = [f"{what}{number}" for number in (1, 2, 3) for what in ("train", "test")]
    found = find_dataset("hmdb51", root=tmp_path, lists=lists, splits=splits)
    assert [len(split.rows) for split in found] == [3570, 1530] * 3
    for split in found:
        assert split.complete
        assert {row.class_index for row in split.rows} == set(range(51))
    for train, test in zip(found[::2], found[1::2], strict=True):
        assert not {row.path for row in train.rows} & {row.path for row in test.rows}


@pytest.mark.parametrize(
    ("dataset", "classes"),
    [
        ("ucf101", {"BaseballPitch": 6, "Biking": 10, "Punch": 70, "SoccerJuggling": 83}),
        ("hmdb51", {"cartwheel": 1, "wave": 50}),
    ],
)
def test_real_clips_come_out_with_the_right_classes(shared, tmp_path, dataset, classes):
    """Every clip stands in some list; where HMDB51 says 0, in none of that split's."""
    lists, root = shared / "data" / "splits" / dataset, tmp_path
    for file in (shared / "data" / dataset).rglob("*.avi"):
        # One of the samples has the dataset's name before its own.
        link = root / file.parent.name / file.name.removeprefix("hmdb51_")
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(file)
    on_disk = {file.relative_to(root).as_posix() for file in root.rglob("*.avi")}
    rows = []
    for split in ("train1", "test1", "train2", "test2", "train3", "test3"):
        with suppress(LabelgenError):  # none of the clips is in the list
            rows += find_dataset(dataset, root=root, lists=lists, splits=[split])[0].rows
    assert {row.path for row in rows} == on_disk
    assert all(row.class_name == row.path.split("/")[-2] for row in rows)
    assert {row.class_name: row.class_index for row in rows} == classes


def test_a_list_of_hmdb51_with_another_tag_is_refused(tmp_path):
    touch([tmp_path / "wave" / "a.avi"])
    (tmp_path / "wave_test_split1.txt").write_text("a.avi 3\n")
    with pytest.raises(LabelgenError, match=r"wave_test_split1.txt: 'a.avi 3' does not end in 0"):
        find_dataset("hmdb51", root=tmp_path, lists=tmp_path)


KINETICS = "label,youtube_id,time_start,time_end,split,is_cc\n"


def kinetics(root, sizes, rows='"air drumming",_a-b,26,36,train,0\nzumba,xyz,1,11,train,0\n'):
    (root / "annotations").mkdir()
    (root / "annotations" / "train.csv").write_text(KINETICS + rows)
    for name, size in sizes.items():
        (root / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "train" / name).write_bytes(bytes(size))
    return root


@pytest.mark.parametrize("folder", ["", "air drumming", "air_drumming"])
@pytest.mark.parametrize("stem", ["_a-b_000026_000036", "_a-b"])
def test_kinetics(tmp_path, folder, stem):
    video = Path(folder, f"{stem}.mp4")
    (found,) = find_dataset("kinetics400", root=kinetics(tmp_path, {video: 10_000}))
    assert found.rows == [ManifestRow(f"train/{video.as_posix()}", "air drumming", 0, "train")]
    assert found.missing == ["xyz_000001_000011"]


@pytest.mark.parametrize("size", [0, 812, 9_999])
def test_stubs_of_failed_downloads_are_left_out(tmp_path, size):
    root = kinetics(
        tmp_path,
        {"_a-b_000026_000036.mp4": size, "_a-b_000026_000036.webm": 20_000, "xyz.mp4": size},
    )
    (found,) = find_dataset("kinetics400", root=root)
    assert [row.path for row in found.rows] == ["train/_a-b_000026_000036.webm"]
    assert found.stubs == ["train/xyz.mp4"]
    assert found.report().endswith(
        "1 of 2 videos, 1 of 400 classes; 1 stub of failed downloads left out"
    )
    lines = write_dataset_manifest("kinetics400", tmp_path / "k.csv", root=root)
    text = (tmp_path / "k.left_out.csv").read_text()
    assert text == "path,reason\ntrain/xyz.mp4,the stub of a failed download\n"
    assert any("k.left_out.csv" in line for line in lines)


def test_a_kinetics_list_of_another_kind_is_refused(tmp_path):
    root = kinetics(tmp_path, {"xyz.mp4": 10_000}, rows="zumba,xyz,,,train,0\n")
    with pytest.raises(LabelgenError, match=r"train.csv, line 2: needs the columns label"):
        find_dataset("kinetics400", root=root)


def test_the_official_list_of_kinetics(shared, tmp_path):
    """A sample of it: two videos of every class."""
    text = (shared / "data" / "splits" / "kinetics400" / "tiny_train.csv").read_text()
    records = list(csv.DictReader(text.splitlines()))
    names = [
        f"{r['label']}/{r['youtube_id']}_{int(r['time_start']):06d}_{int(r['time_end']):06d}.mp4"
        for r in records
    ]
    root = kinetics(tmp_path, dict.fromkeys(names, 10_000), text.removeprefix(KINETICS))
    (found,) = find_dataset("kinetics400", root=root)
    assert [row.class_name for row in found.rows] == [record["label"] for record in records]
    assert found.complete == (len({record["label"] for record in records}) == 400)


@pytest.mark.parametrize("cells", [False, True])
def test_aslan(tmp_path, cells):
    """Of the videos that are there, those that pairs name."""
    io = pytest.importorskip("scipy.io", reason="scipy comes with the extra evaluate")
    touch(tmp_path / "ASLAN_MP4" / f"{number:04d}.mp4" for number in (1, 2, 30, 400))
    pairs = np.array([[[1, 30, 1, 7, 7], [3697, 2, 0, 7, 9]]]).transpose(1, 2, 0)
    io.savemat(
        tmp_path / "View2.mat", {"action_splits_pairs": pairs.astype(object if cells else float)}
    )
    (found,) = find_dataset("aslan", root=tmp_path)
    assert found.rows == [
        ManifestRow(f"ASLAN_MP4/{name}.mp4", split="view2") for name in ("0001", "0002", "0030")
    ]
    assert found.missing == ["3697"]
    (tmp_path / "View2.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(LabelgenError, match="cannot be read as ASLAN's View2.mat"):
        find_dataset("aslan", root=tmp_path)


def test_yupenn(tmp_path):
    touch(tmp_path / f"scene {c}" / f"{v}.mov" for c in range(14) for v in range(30))
    (found,) = find_dataset("yupenn", root=tmp_path)
    assert found.report() == "yupenn all: 420 of 420 videos, 14 of 14 classes"
    assert found.complete
    (tmp_path / "scene 3" / "7.mov").unlink()
    (found,) = find_dataset("yupenn", root=tmp_path)
    assert not found.complete


def test_strict(tmp_path):
    root = kinetics(tmp_path, {"_a-b.mp4": 10_000})
    output = tmp_path / "k.csv"
    with pytest.raises(
        LabelgenError, match="1 of 2 videos, .*; 1 listed video not on disk"
    ) as told:
        write_dataset_manifest("kinetics400", output, root=root, strict=True)
    assert "k.left_out.csv" in str(told.value)
    assert not output.exists()
    assert (tmp_path / "k.left_out.csv").exists()
    touch(tmp_path / "any" / f"{number}.avi" for number in range(3))
    write_dataset_manifest("folder", output, root=tmp_path / "any", strict=True)
    assert output.exists()


def test_mistakes(tmp_path):
    with pytest.raises(LabelgenError, match="unknown dataset 'ufc101'; .* ucf101"):
        find_dataset("ufc101", root=tmp_path)
    with pytest.raises(LabelgenError, match="no split 'train4'; it has train1"):
        find_dataset("ucf101", root=tmp_path, splits=["train4"])
    with pytest.raises(
        LabelgenError,
        match="there is no folder .*nowhere; name the one that holds the videos of ucf101 .https",
    ):
        find_dataset("ucf101", root=tmp_path / "nowhere")
    with pytest.raises(LabelgenError, match="name the one that holds videos with --root"):
        find_dataset("folder", root=tmp_path / "nowhere")
    with pytest.raises(LabelgenError, match=r"trainlist01.txt .* is not in .*; get it from https"):
        find_dataset("ucf101", root=tmp_path)


def test_table_is_complete():
    table = read_table()
    known = {"demo", "folder", "ucf101", "hmdb51", "kinetics400", "aslan", "yupenn"}
    assert {row.dataset for row in table} == known
    for row in table:
        assert (REPOSITORY / "workflows" / f"{row.dataset}.mk").is_file()
        assert row.source


def test_written_manifest(videos, tmp_path):
    lines = write_dataset_manifest("folder", tmp_path / "m.csv", root=videos)
    assert "4 of 4 videos, 2 classes" in lines[0]
    with (tmp_path / "m.csv").open(newline="") as stream:
        records = list(csv.DictReader(stream))
    assert [record["frames"] for record in records] == ["50", "33", "16", "9"]
    assert [row.path for row in read_manifest(tmp_path / "m.csv", root=videos)] == [
        "run/a.avi",
        "run/b.avi",
        "walk/c.avi",
        "walk/short.avi",
    ]


@pytest.mark.parametrize("split", ["train/1", "../x", ".hidden", "a\\b"])
def test_a_split_must_fit_into_a_file_name(root, tmp_path, split):
    file = tmp_path / "m.csv"
    file.write_text(f"path,split\na/x.avi,{split}\n")
    with pytest.raises(LabelgenError, match=r"m\.csv, line 2: the split .* cannot stand"):
        read_manifest(file, root=root)


def test_one_video_has_one_spelling(root, tmp_path):
    file = tmp_path / "m.csv"
    file.write_text("path\n./a//x.avi\n")
    assert [row.path for row in read_manifest(file, root=root)] == ["a/x.avi"]
    file.write_text("path\na/x.avi\n./a/x.avi\n")
    with pytest.raises(LabelgenError, match="line 3: './a/x.avi' stands in line 2 already"):
        read_manifest(file, root=root)


def test_a_backslash_is_a_letter_where_there_is_such_a_file(root, tmp_path):
    (root / "a\\b.avi").touch()
    write_dataset_manifest("folder", tmp_path / "m.csv", root=root)
    assert "a\\b.avi" in {row.path for row in read_manifest(tmp_path / "m.csv", root=root)}


def test_the_table_of_datasets_is_package_data():
    import labelgen.video.datasets as module

    inside = REPOSITORY / "labelgen" / "video" / "data_manifest.csv"
    assert inside.read_bytes() == (REPOSITORY / "data_manifest.csv").read_bytes()
    if (REPOSITORY / ".git").exists():  # a distribution holds a copy
        assert inside.is_symlink()
    assert inside.parent == type(inside)(module.__file__).parent


def test_a_nul_byte_is_refused(root, tmp_path):
    file = tmp_path / "m.csv"
    file.write_bytes(b"path,class_name\na/x.avi,a\0b\n")
    with pytest.raises(LabelgenError, match=r"m\.csv, line 2: .*NUL"):
        read_manifest(file, root=root)


def test_what_is_passed_over_is_counted_once(root, capsys):
    for name in ("a.txt", "b.txt", "README", ".hidden.txt"):
        (root / name).touch()
    find_videos(root)
    assert capsys.readouterr().err == f"passed over below {root}: 2 *.txt, 1 without a suffix\n"


def test_missing_videos_are_all_named_in_a_file(shared, tmp_path):
    root = ucf101(tmp_path, ["HandstandPushups/v_HandStandPushups_g08_c01.avi"])
    lists = shared / "data" / "splits" / "ucf101"
    output = tmp_path / "u.csv"
    lines = write_dataset_manifest("ucf101", output, root=root, lists=lists)
    names = (tmp_path / "u.left_out.csv").read_text().splitlines()
    assert len(names) == 1 + 9536
    assert any("u.left_out.csv: all listed videos" in line for line in lines)


def test_frame_counts_are_kept_for_videos_that_did_not_change(tmp_path, monkeypatch):
    from labelgen.video import decode

    for name, count in (("a", 20), ("b", 30)):
        write_video(tmp_path / "v" / f"{name}.avi", moving_square(count))
    looked = []
    real = decode.claimed_frames
    monkeypatch.setattr(
        decode, "claimed_frames", lambda path: looked.append(path.name) or real(path)
    )
    found = []
    for change in (None, None, "a"):
        if change:
            write_video(tmp_path / "v" / "a.avi", moving_square(40))
        looked.clear()
        time.sleep(0.02)  # times of change are as fine as the system's clock
        write_dataset_manifest("folder", tmp_path / "m.csv", root=tmp_path / "v")
        rows = read_manifest(tmp_path / "m.csv", root=tmp_path / "v")
        found.append((sorted(looked), [row.frames for row in rows]))
    assert found == [(["a.avi", "b.avi"], [20, 30]), ([], [20, 30]), (["a.avi"], [40, 30])]


def test_frame_counts_are_those_of_the_very_file(tmp_path):
    """Two roots with the same names, a link that leads elsewhere, a file that came later."""
    for folder, count in (("one", 20), ("two", 30)):
        write_video(tmp_path / folder / "a.avi", moving_square(count))
    (tmp_path / "link").symlink_to(tmp_path / "one")

    def counts(root):
        write_dataset_manifest("folder", tmp_path / "m.csv", root=tmp_path / root)
        return [row.frames for row in read_manifest(tmp_path / "m.csv", root=tmp_path / root)]

    assert [counts(root) for root in ("one", "two", "link", "one")] == [[20], [30], [20], [20]]
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "two")
    assert counts("link") == [30]
    for spoilt in ("{", "[]", '{"": 7}'):
        (tmp_path / "m.frames.json").write_text(spoilt)
        assert counts("link") == [30]


def test_a_file_that_is_replaced_while_headers_are_read_is_read_again(tmp_path, monkeypatch):
    from labelgen.video import decode

    video, real = write_video(tmp_path / "v" / "a.avi", moving_square(20)), decode.claimed_frames

    def replaced(path):
        count = real(path)
        monkeypatch.undo()
        write_video(path, moving_square(40))
        return count

    monkeypatch.setattr(decode, "claimed_frames", replaced)
    for count in (20, 40):
        write_dataset_manifest("folder", tmp_path / "m.csv", root=video.parent)
        (row,) = read_manifest(tmp_path / "m.csv", root=video.parent)
        assert row.frames == count


def test_a_length_that_could_not_be_read_is_looked_up_again(tmp_path, monkeypatch):
    from labelgen.video import decode

    write_video(tmp_path / "v" / "a.avi", moving_square(20))
    monkeypatch.setattr(decode, "claimed_frames", lambda path: 0)
    write_dataset_manifest("folder", tmp_path / "m.csv", root=tmp_path / "v")
    monkeypatch.undo()
    write_dataset_manifest("folder", tmp_path / "m.csv", root=tmp_path / "v")
    assert [row.frames for row in read_manifest(tmp_path / "m.csv", root=tmp_path / "v")] == [20]
