"""Where the bytes of each clip lie in a shard, so that they are read without HDF5.

An open HDF5 file takes half a megabyte in every process, and opening it longer than reading a clip;
with thousands of shards neither will do. A file's layout is looked up once, through HDF5; then a
clip is one read at a known place, and one for each JPEG. Checksums are not looked at, since
`labelgen verify` does that once, and reading would take several times as long. The format is that
of the HDF5 File Format Specification, version 3: filters in Sec. IV.A.2.l, the global heap in
Sec. III.E.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import h5py
import numpy as np

from labelgen.geometry import FRAME_SIZE
from labelgen.shards.reader import open_shard

_HEAP = struct.Struct("<4sB3xQ")  # signature, version, size of the collection
_OBJECT = struct.Struct("<HH4xQ")  # index, references, size; data follow, padded to 8 bytes
_REFERENCE = np.dtype([("size", "<u4"), ("address", "<u8"), ("index", "<u4")])
_CHECKSUM = 4  # bytes that fletcher32 appends
_LARGEST = 1 << 26  # bytes of a value, or of a heap collection, that are believed

ReadAt = Callable[[int, int], bytes]


class DamageError(ValueError):
    """Bytes that are not what the layout says."""


@dataclass(frozen=True)
class Layout:
    """How one dataset of a shard is stored, a clip in a piece.

    Attributes
    ----------
    offsets : (N,) int64
        Place of each clip's bytes in the file.
    sizes : (N,) uint32
        Their number.
    skipped : (N,) uint32 or None
        Bit i: filter i was left out for this clip. None where none ever was.
    filters : tuple of int
        HDF5's numbers of filters, in the order in which they were applied.
    shape : tuple of int
        Of one clip.
    dtype : numpy.dtype
        Of its values; of references, where they are of variable length.
    """

    offsets: np.ndarray
    sizes: np.ndarray
    skipped: np.ndarray | None
    filters: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, read_at: ReadAt, row: int) -> np.ndarray:
        """Return one clip's values, read-only.

        Parameters
        ----------
        read_at : callable
            Takes offset and size and returns those bytes of the file.

        Raises
        ------
        DamageError
            The bytes cannot be what was written.
        """
        data: bytes | memoryview = read_at(int(self.offsets[row]), int(self.sizes[row]))
        skipped = 0 if self.skipped is None else int(self.skipped[row])
        for place in reversed(range(len(self.filters))):
            if not skipped >> place & 1:
                data = _undo(self.filters[place], data, self.dtype.itemsize)
        if len(data) != self.dtype.itemsize * int(np.prod(self.shape)):
            raise DamageError("not as many bytes as a clip has")
        return np.frombuffer(data, self.dtype).reshape(self.shape)


def layout_of(dataset: h5py.Dataset) -> Layout | None:
    """Look up how a dataset is stored; None if its pieces are not one clip each.

    Shards of labelgen always are.
    """
    count, *shape = dataset.shape
    variable = h5py.check_vlen_dtype(dataset.dtype) is not None
    dtype = _REFERENCE if variable else dataset.dtype
    plist = dataset.id.get_create_plist()
    filters = tuple(plist.get_filter(i)[0] for i in range(plist.get_nfilters()))
    known = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
    if dataset.file.userblock_size or not known.issuperset(filters):
        return None
    places = np.zeros((3, count), np.int64)
    if dataset.chunks == (1, *shape):

        def note(chunk: h5py.h5d.StoreInfo) -> None:
            row = chunk.chunk_offset[0]
            places[:, row] = chunk.byte_offset, chunk.size, chunk.filter_mask

        dataset.id.chunk_iter(note)
    elif dataset.chunks is None and dataset.id.get_offset() is not None:
        size = dtype.itemsize * int(np.prod(shape))
        places[0] = dataset.id.get_offset() + size * np.arange(count)
        places[1] = size
    else:
        return None
    if not places[1].all():
        return None  # pieces that were never written
    skipped = places[2].astype(np.uint32) if places[2].any() else None
    offsets, sizes = places[0].copy(), places[1].astype(np.uint32)
    return Layout(offsets, sizes, skipped, filters, tuple(shape), dtype)


def _undo(kind: int, data: bytes | memoryview, itemsize: int) -> bytes | memoryview:
    if kind == h5py.h5z.FILTER_FLETCHER32:
        return data[:-_CHECKSUM]  # `labelgen verify` checks content, once
    if kind == h5py.h5z.FILTER_DEFLATE:
        try:
            return zlib.decompress(data)
        except zlib.error as error:
            raise DamageError(str(error)) from None
    if len(data) % itemsize:
        raise DamageError("not a whole number of values")
    planes = np.frombuffer(data, np.uint8).reshape(itemsize, -1)
    whole = np.empty((planes.shape[1], itemsize), np.uint8)
    for place, plane in enumerate(planes):  # six times as fast as to transpose
        whole[:, place] = plane
    return whole.data.cast("B").toreadonly()


def read_heap(read_at: ReadAt, reference: np.void) -> np.ndarray:
    """Return the bytes of one value of variable length, (n,) uint8, read-only.

    Parameters
    ----------
    read_at : callable
        As for `Layout.read`.
    reference : numpy.void
        Size, address of a heap collection, index in it.

    Raises
    ------
    DamageError
        There is no such value at that place.
    """
    address, size = int(reference["address"]), int(reference["size"])
    if size > _LARGEST:
        raise DamageError(f"a value of {size} bytes")
    # A JPEG is mostly alone in its collection.
    data = read_at(address, _HEAP.size + _OBJECT.size + size)
    signature, _, collection = _HEAP.unpack_from(data)
    if signature != b"GCOL" or collection > _LARGEST:
        raise DamageError("no heap where the file refers to one")
    place, index = _HEAP.size, -1
    while index and place + _OBJECT.size + size <= collection:
        if place + _OBJECT.size + size > len(data):
            data = read_at(address, collection)
        index, _, held = _OBJECT.unpack_from(data, place)
        place += _OBJECT.size
        if (index, held) == (reference["index"], size):
            return np.frombuffer(data, np.uint8, size, place)
        place += -(-held // 8) * 8
    raise DamageError("the heap lacks a value that the file refers to")


class Stamp(NamedTuple):
    """What tells a file from one that took its place; the same on every machine that sees it."""

    bytes: int
    changed: int


def stamp_of(found: os.stat_result) -> Stamp:
    """Return the stamp of a file from its status."""
    return Stamp(found.st_size, found.st_mtime_ns)


class StoredClips:
    """The clips of one shard.

    Parameters
    ----------
    path : path
        Opened when something is read, and kept open until `close`.
    stamp : Stamp, optional
        Of the file that is meant; by default of that which is there now.
    fields : tuple of str, optional
        What else than labels and frames is read.

    Raises
    ------
    OSError
        It cannot be opened, or another file has taken its place; from reading, too.
    """

    def __init__(
        self, path: Path, *, stamp: Stamp | None = None, fields: tuple[str, ...] = ()
    ) -> None:
        self._path, self._stamp = path, stamp or stamp_of(path.stat())
        self._descriptor: int | None = None
        try:
            with open_shard(path) as file:
                stored = {"labels", "frames", *fields} & file.keys()  # labels may be absent
                self._layouts = {name: layout_of(file[name]) for name in stored}
                self._jpeg = file["frames"].ndim == 2
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise OSError(f"{path}: {error}") from None
        self._check(path.stat())

    def _check(self, found: os.stat_result) -> None:
        if stamp_of(found) != self._stamp:
            raise OSError(f"{self._path}: another file has taken its place")

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def labels(self, row: int) -> np.ndarray:
        """(K, 27) uint8 of one clip, all crops.

        Raises
        ------
        DamageError
            They cannot be read.
        """
        return self._read("labels", row)

    def field(self, name: str, row: int) -> np.ndarray:
        """One of `fields` of one clip, (..., 128, 171) of floating-point numbers.

        Raises
        ------
        DamageError
            It cannot be read.
        """
        return self._read(name, row)

    def frames(self, row: int) -> Sequence[np.ndarray]:
        """Pixels of one clip: 16 of (128, 171, 3) uint8 RGB.

        Raises
        ------
        DamageError
            They cannot be read.
        """
        stored = self._read("frames", row)
        if not self._jpeg:
            return list(stored)
        return [_decoded(self._value(element)) for element in stored]

    def _read(self, name: str, row: int) -> np.ndarray:
        layout = self._layouts[name]
        if layout is not None:
            return layout.read(self._read_at, row)
        self._check(self._path.stat())
        try:
            with open_shard(self._path) as file:
                return file[name][row]
        except OSError as error:
            raise DamageError(str(error)) from None

    def _value(self, element: Any) -> np.ndarray:
        """Return a JPEG's bytes from its reference, or as HDF5 has read it already."""
        return element if isinstance(element, np.ndarray) else read_heap(self._read_at, element)

    def _read_at(self, offset: int, size: int) -> bytes:
        if self._descriptor is None:
            descriptor = os.open(self._path, os.O_RDONLY)
            try:
                self._check(os.fstat(descriptor))
            except OSError:
                os.close(descriptor)
                raise
            self._descriptor, self._size = descriptor, os.fstat(descriptor).st_size
        if not 0 <= offset <= offset + size <= self._size:
            raise DamageError("it would lie outside the file")
        try:
            data = os.pread(self._descriptor, size, offset)
        except OSError as error:  # a bad sector
            raise DamageError(error.strerror or str(error)) from None
        if len(data) != size:
            raise DamageError("the file ends too early")
        return data


def _decoded(data: np.ndarray) -> np.ndarray:
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise DamageError("not a JPEG")
    if image.shape[:2] != FRAME_SIZE:
        raise DamageError(f"a JPEG of {image.shape[1]}x{image.shape[0]} pixels")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
