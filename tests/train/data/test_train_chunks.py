"""Bytes found without HDF5 are those that HDF5 finds, however a shard is stored."""

import os

import cv2
import h5py
import numpy as np
import pytest
from train_helpers import toy_shards

from train.data.chunks import DamageError, StoredClips, layout_of, read_heap


@pytest.fixture
def reading(tmp_path):
    """A file to write to, and what reads from it afterwards."""
    path = tmp_path / "x.h5"

    def read_at(offset, size):
        with path.open("rb") as file:
            return os.pread(file.fileno(), size, offset)

    return path, read_at


FILTERS = {
    "as they are": {},
    "checked": {"fletcher32": True},
    "packed": {"compression": "gzip"},
    "shuffled": {"shuffle": True},
    "all": {"shuffle": True, "compression": "gzip", "fletcher32": True},
}


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
@pytest.mark.parametrize("noise", [False, True])
def test_pieces_of_one_clip_each(reading, filters, dtype, noise):
    """Where a filter would make a piece larger, HDF5 leaves it out and says so."""
    path, read_at = reading
    rng = np.random.default_rng(0)
    values = (rng.random((30, 7, 5)) * (256 if noise else 2)).astype(dtype)
    with h5py.File(path, "w") as file:
        options = {"chunks": (1, 7, 5), "maxshape": (None, 7, 5), **FILTERS[filters]}
        data = file.create_dataset("x", (0, 7, 5), dtype, **options)
        for row in range(30):
            data.resize(row + 1, axis=0)
            data[row] = values[row]
        layout = layout_of(data)
    for row in range(30):
        np.testing.assert_array_equal(layout.read(read_at, row), values[row])


def test_one_piece_of_all_clips(reading):
    path, read_at = reading
    values = np.arange(24, dtype=np.uint16).reshape(4, 3, 2)
    with h5py.File(path, "w") as file:
        layout = layout_of(file.create_dataset("x", data=values))
    for row in range(4):
        np.testing.assert_array_equal(layout.read(read_at, row), values[row])


def test_filters_that_were_left_out_for_a_piece(reading):
    path, read_at = reading
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", (2, 4), np.uint8, chunks=(1, 4), compression="gzip")
        data[0] = 1
        data.id.write_direct_chunk((1, 0), b"abcd", filter_mask=1)
        layout = layout_of(data)
    assert layout.read(read_at, 0).tolist() == [1] * 4
    assert layout.read(read_at, 1).tobytes() == b"abcd"


@pytest.mark.parametrize("sizes", [[13_000] * 9, [10, 3, 500, 7, 8, 9, 70_000, 2], [100] * 300])
def test_values_of_any_length(reading, sizes):
    """Large ones have a heap collection each, small ones share one."""
    path, read_at = reading
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 256, size).astype(np.uint8) for size in sizes]
    with h5py.File(path, "w") as file:
        shape = (len(values), 1)
        data = file.create_dataset("x", shape, h5py.vlen_dtype(np.uint8), chunks=(1, 1))
        for row, value in enumerate(values):
            data[row, 0] = value
        layout = layout_of(data)
    for row, value in enumerate(values):
        (reference,) = layout.read(read_at, row)
        np.testing.assert_array_equal(read_heap(read_at, reference), value)


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (2, 3)},
        {"chunks": (1, 2)},
        {"chunks": (1, 3), "compression": "lzf"},
        {"chunks": (1, 3), "scaleoffset": 0},
    ],
)
def test_pieces_of_other_kinds_are_left_to_hdf5(reading, options):
    path, _ = reading
    with h5py.File(path, "w") as file:
        assert layout_of(file.create_dataset("x", (4, 3), np.uint8, **options)) is None


def test_pieces_that_were_never_written_are_left_to_hdf5(reading):
    path, _ = reading
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", (4, 3), np.uint8, chunks=(1, 3))
        data[0] = 1
        assert layout_of(data) is None


def damaged(path, old, new):
    content = path.read_bytes()
    assert content.count(old) >= 1
    path.write_bytes(content.replace(old, new))


def test_a_heap_that_is_damaged_is_said(reading):
    path, read_at = reading
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", (1, 2), h5py.vlen_dtype(np.uint8), chunks=(1, 2))
        for place in (0, 1):
            data[0, place] = np.full(50, place + 1, np.uint8)
        layout = layout_of(data)
    references = layout.read(read_at, 0)
    for field, value in (("index", 77), ("size", 51), ("size", 2**31), ("address", 0)):
        wrong = references[0].copy()
        wrong[field] = value
        with pytest.raises(DamageError):
            read_heap(read_at, wrong)
    damaged(path, b"GCOL", b"GLOC")
    with pytest.raises(DamageError, match="no heap"):
        read_heap(read_at, references[0])


def test_packed_bytes_that_are_damaged_are_said(reading):
    path, read_at = reading
    with h5py.File(path, "w") as file:
        values = np.arange(1000, dtype=np.uint16).reshape(1, 1000)
        data = file.create_dataset("x", data=values, chunks=(1, 1000), compression="gzip")
        layout = layout_of(data)
    content = bytearray(path.read_bytes())
    content[int(layout.offsets[0]) + 20] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DamageError):
        layout.read(read_at, 0)


def with_a_jpeg(folder, data):
    """A shard whose clip 1 has another JPEG."""
    path = toy_shards(folder, 3, jpeg=True) / "toy-00000-of-00001.h5"
    with h5py.File(path, "a") as file:
        file["frames"][1, 4] = np.frombuffer(data, np.uint8)
    return path


def test_a_jpeg_of_another_size_is_said(tmp_path):
    small = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    clips = StoredClips(with_a_jpeg(tmp_path / "s", small))
    with pytest.raises(DamageError, match="a JPEG of 64x64 pixels"):
        clips.frames(1)
    assert len(clips.frames(0)) == 16


@pytest.mark.parametrize("address", [2**63, 2**64 - 8, 10**9])
def test_references_out_of_the_file_are_said(tmp_path, address):
    clips = StoredClips(toy_shards(tmp_path / "s", 2, jpeg=True) / "toy-00000-of-00001.h5")
    reference = clips._read("frames", 0)[0].copy()
    reference["address"] = address
    with pytest.raises(DamageError, match="outside the file"):
        read_heap(clips._read_at, reference)


def test_bad_sectors_are_damage(tmp_path, monkeypatch):
    clips = StoredClips(toy_shards(tmp_path / "s", 2) / "toy-00000-of-00001.h5")

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(DamageError, match="Input/output error"):
        clips.labels(0)


def test_a_shard_whose_layout_is_damaged_is_named(tmp_path):
    path = toy_shards(tmp_path / "s", 2) / "toy-00000-of-00001.h5"
    with h5py.File(path, "a") as file:
        del file["frames"]
    with pytest.raises(OSError, match="toy-00000-of-00001.h5: "):
        StoredClips(path)
