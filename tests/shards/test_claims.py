import subprocess
import sys
import threading

import pytest

from labelgen.errors import LabelgenError
from labelgen.shards import claims
from labelgen.shards.claims import CLAIMS, claimed, is_claimed, locked, present

HOLD = """
import pathlib, sys
from labelgen.shards.claims import claimed
with claimed(pathlib.Path(sys.argv[1])) as ours:
    print(ours, flush=True)
    input()
"""


@pytest.fixture
def shard(tmp_path):
    return tmp_path / "s-00000-of-00001.h5"


def test_a_claim_is_one_process_alone_and_leaves_nothing(shard):
    assert not is_claimed(shard)
    with claimed(shard) as first, claimed(shard) as second:
        assert (first, second) == (True, False)
        assert is_claimed(shard)
    assert not is_claimed(shard)
    assert list(shard.parent.iterdir()) == []
    with claimed(shard) as again:
        assert again


def test_a_claim_ends_with_its_process_however_it_ends(shard):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, shard], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"True\n"
        with claimed(shard) as ours:
            assert not ours
        other.kill()
        other.wait()
    assert (shard.parent / CLAIMS / shard.name).exists()
    assert not is_claimed(shard)
    with claimed(shard) as ours:
        assert ours


def test_a_claim_given_up_between_opening_and_locking_is_not_ours(shard, monkeypatch):
    lock = claims._flock

    def late(stream, how):
        (shard.parent / CLAIMS / shard.name).unlink()
        return lock(stream, how)

    monkeypatch.setattr(claims, "_flock", late)
    with claimed(shard) as ours:
        assert not ours


def test_the_lock_goes_with_the_last_process_that_holds_it(tmp_path):
    with locked(tmp_path / "s") as lock:
        worker = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock]
        )
    with pytest.raises(LabelgenError, match="another run is writing"), locked(tmp_path / "s"):
        pass
    worker.communicate(b"\n")
    with locked(tmp_path / "s"):
        pass


def test_who_waits_for_the_lock_says_so_and_gets_it(tmp_path, monkeypatch):
    said, release = [], threading.Event()

    def write(text):
        said.append(text)
        release.set()

    monkeypatch.setattr(claims, "_PATIENCE", 0.1)
    monkeypatch.setattr(sys.stderr, "write", write)
    first = locked(tmp_path)
    first.__enter__()
    other = threading.Thread(target=lambda: release.wait() and first.__exit__(None, None, None))
    other.start()
    with locked(tmp_path, waits=True) as lock:
        assert lock is not None
    other.join()
    assert said[0] == f"waiting for another run that is planning in {tmp_path}"


def test_who_is_present_is_alone_or_not(tmp_path):
    with present(tmp_path) as first:
        assert first.is_alone()
        with present(tmp_path) as second:
            assert not second.is_alone()
            assert not first.is_alone()
        assert first.is_alone()
