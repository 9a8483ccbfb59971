import numpy as np
from oracle import BLOCKS, PARTITIONS

from labelgen.labels.partitions import AREAS, ATOMS, BOUNDS, MASKS, MEMBERS
from labelgen.labels.partitions import PARTITIONS as FOUND


def test_masks_are_the_blocks_of_the_specification():
    for partition, name in zip(FOUND, PARTITIONS, strict=True):
        assert partition.name == name
        for mask, block in zip(partition.masks, BLOCKS[name], strict=True):
            expected = np.zeros((112, 112), bool)
            expected[block] = True
            np.testing.assert_array_equal(mask, expected)


def test_atoms_put_every_block_together():
    for mask, members in zip(MASKS, MEMBERS, strict=True):
        np.testing.assert_array_equal(members[ATOMS], mask)
    np.testing.assert_array_equal(AREAS, MASKS.sum(axis=(1, 2)))
    assert BOUNDS.tolist() == [0, 16, 20, 28]


def test_mirrored_blocks():
    for partition in FOUND:
        for mask, mirrored in zip(partition.masks, partition.mirrored, strict=True):
            np.testing.assert_array_equal(partition.masks[mirrored], mask[:, ::-1])
