"""The manifest of finished regions: cut short, flipped, of another run; what is whole in it stays whole."""

import errno

import numpy as np
import pytest

from skipway.errors import DataError, EnvironmentFault, UsageError
from skipway.predict.journal import Journal, about_of, differences

ABOUT = {"network": "ab" * 32, "input": {"size": 12, "names": ["é"]}, "step": [64, 64]}


def arrays(number):
    rng = np.random.default_rng(number)
    return {
        "labels": rng.integers(0, 3, (7 + number, 900), np.uint8),
        "shares": rng.random((2, 300, 400), np.float32),
    }


def filled(path, numbers):
    with Journal(path, ABOUT) as journal:
        for number in numbers:
            journal.add(number, arrays(number))
    return path


def same(journal, number):
    return all(np.array_equal(journal.read(number, name), array) for name, array in arrays(number).items())


def test_what_was_added_is_there_again_whole_and_by_rows(tmp_path):
    path = filled(tmp_path / "x" / "a.regions", [4, 0, 2])
    with Journal(path, ABOUT) as journal:
        assert journal.done == {0, 2, 4}
        assert journal.damaged == 0
        assert all(same(journal, number) for number in (0, 2, 4))
        labels = arrays(4)["labels"]
        assert np.array_equal(journal.read(4, "labels", slice(3, 9)), labels[3:9])
        assert np.array_equal(journal.read(4, "shares", slice(1, 2)), arrays(4)["shares"][1:2])
        with pytest.raises(KeyError):
            journal.read(1, "labels")
        with pytest.raises(KeyError):
            journal.read(4, "masks")


def test_rows_of_long_arrays_are_packed_in_pieces(tmp_path):
    long = np.random.default_rng(0).integers(0, 9, (5000, 300), np.uint8)
    with Journal(tmp_path / "j", ABOUT) as journal:
        journal.add(0, {"labels": long})
        for rows in (slice(0, 1), slice(870, 2000), slice(4999, 5000), slice(None), slice(10, 10)):
            assert np.array_equal(journal.read(0, "labels", rows), long[rows])


def test_a_file_cut_at_any_byte_keeps_the_regions_before(tmp_path):
    path = filled(tmp_path / "j", [0, 1, 2])
    whole = path.read_bytes()
    ends = []
    for upto in ([0], [0, 1], [0, 1, 2]):
        ends.append(len(filled(tmp_path / f"j{len(upto)}", upto).read_bytes()))
    rng = np.random.default_rng(0)
    for cut in [*rng.integers(0, len(whole), 60).tolist(), *ends, ends[0] - 1, ends[1] + 5]:
        path.write_bytes(whole[:cut])
        with Journal(path, ABOUT) as journal:
            kept = sum(end <= cut for end in ends)
            assert journal.done == set(range(kept)), cut
            assert all(same(journal, number) for number in journal.done)
            journal.add(9, arrays(9))  # it goes on behind what is whole
        with Journal(path, ABOUT) as journal:
            assert journal.done == {*range(kept), 9}
            assert same(journal, 9)


def test_a_flipped_bit_anywhere_loses_its_own_region_and_no_other(tmp_path):
    path = filled(tmp_path / "j", [0, 1, 2])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    rng = np.random.default_rng(1)
    for place in rng.integers(first, len(whole), 80).tolist():
        broken = bytearray(whole)
        broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        with Journal(path, ABOUT) as journal:
            assert len(journal.done) == 2, place
            assert journal.damaged >= 1
            assert all(same(journal, number) for number in journal.done)
            (lost,) = {0, 1, 2} - journal.done
            journal.add(lost, arrays(lost))
        with Journal(path, ABOUT) as journal:
            assert journal.done == {0, 1, 2}
            assert all(same(journal, number) for number in range(3))


def test_a_bit_that_turns_while_it_is_open_is_an_error_and_never_a_label(tmp_path):
    path = filled(tmp_path / "j", [0])
    with Journal(path, ABOUT) as journal:
        place = path.stat().st_size - 300
        with path.open("rb+") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 4]))
        with pytest.raises(DataError, match="damaged on the disk"):
            journal.read(0, "shares")


@pytest.mark.parametrize("now", [{**ABOUT, "network": "cd" * 32}, {**ABOUT, "level": 1}])
def test_a_manifest_of_something_else_is_begun_anew(tmp_path, now):
    path = filled(tmp_path / "j", [0, 1])
    assert about_of(path) == ABOUT
    assert len(differences(about_of(path), now)) == 1
    with Journal(path, now) as journal:
        assert journal.done == set()
    assert about_of(path) == now
    path.write_bytes(b"something else")
    assert about_of(path) is None
    assert about_of(tmp_path / "none") is None


def test_manifests_of_several_workers_become_one(tmp_path):
    filled(tmp_path / "a", [0, 1])
    filled(tmp_path / "b", [1, 2, 3])
    with Journal(tmp_path / "a", ABOUT) as a, Journal(tmp_path / "b", ABOUT) as b:
        assert a.absorb(b) == 2
        assert a.done == {0, 1, 2, 3}
    with Journal(tmp_path / "a", ABOUT) as a:
        assert all(same(a, number) for number in range(4))


def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = filled(tmp_path / "j", [0])
    journal = Journal(path, ABOUT)
    file, left = journal._file, [3000]

    class Full:
        def __getattr__(self, name):
            return getattr(file, name)

        def write(self, data):
            took = min(left[0], len(data))
            if not took:
                raise OSError(errno.ENOSPC, "No space left on device")
            left[0] -= took
            return file.write(data[:took])

    journal._file = Full()
    with pytest.raises(EnvironmentFault, match="bytes are needed"):
        journal.add(1, arrays(1))
    journal.close()
    with Journal(path, ABOUT) as again:
        assert again.done == {0}
        assert again.damaged == 0


def test_two_processes_cannot_write_one_file(tmp_path):
    path = filled(tmp_path / "j", [0])
    with Journal(path, ABOUT), pytest.raises(UsageError, match="another skipway predicts this image"):
        Journal(path, ABOUT, fresh=True)
    with Journal(path, ABOUT) as journal:
        assert journal.done == {0}
