"""The reader of HDF5: a name is the name of one thing in one group."""
import h5py
import numpy as np
import pytest

from zfcore.check import Expected
from zfcore.checkpoint import LIBVER
from zfcore.hdf5 import CHUNK, DamagedFile, open_h5, write_array, write_table


def test_a_name_with_folders_in_it_leads_nowhere(tmp_path):
    with h5py.File(tmp_path/"other.h5", "w") as file:
        file["inner/secret"] = np.ones(3)
    with h5py.File(tmp_path/"file.h5", "w") as file:
        file["own/array"] = np.ones(3)
        file["away"] = h5py.ExternalLink(str(tmp_path/"other.h5"), "/inner")
    with open_h5(tmp_path/"file.h5") as file:
        assert file.group("own").array("array").shape == (3,)
        for name in ("away/secret", "own/array", "/own"):
            assert name not in file
            for ask in (file.array, file.group, file.is_group):
                with pytest.raises(Expected):
                    ask(name)


def test_a_file_that_is_no_hdf5_is_not_called_a_damaged_one(tmp_path):
    with h5py.File(tmp_path/"file.h5", "w") as file:
        file["array"] = np.ones(3000)
    content = (tmp_path/"file.h5").read_bytes()
    for data, words in ((b"", "an HDF5 file, got an empty file"),
                        (b"# Words\n"*100, "an HDF5 file, got a file that does not begin as one"),
                        (content[:3000], "a whole HDF5 file, got one cut short or damaged")):
        (tmp_path/"file.h5").write_bytes(data)
        with pytest.raises(Expected, match=words), open_h5(tmp_path/"file.h5"):
            pass


@pytest.mark.parametrize("compressed", (False, True))
@pytest.mark.parametrize("array", (np.arange(5.0), np.ones((3, 0, 2)), np.zeros(0, np.int64), np.ones((1, 2, 3), np.float32),
                                   np.arange(CHUNK/4 + 3), np.ones((3, CHUNK//4 + 1), np.float32), np.arange(7e5).reshape(7, -1),
                                   np.array([b"a", b"bc"]), np.arange(200)[::2]),
                         ids=lambda array: "x".join(map(str, array.shape)))
def test_an_array_that_is_written_is_read_again_takes_little_more_room_and_has_a_checksum(array, compressed, tmp_path):
    with h5py.File(tmp_path/"file.h5", "w") as file:
        write_array(file, "group/array", array, compressed)
        written = file["group/array"]
        assert written.fletcher32 == (array.size > 0)
        row = array.nbytes//max(len(array), 1)
        if array.size:
            assert np.prod(written.chunks)*array.itemsize < CHUNK + row
            if not compressed:                    # the last chunk lacks less than a row for each of the others
                chunks = written.id.get_num_chunks()
                assert written.id.get_storage_size() <= array.nbytes + chunks*(row + 4)
    with open_h5(tmp_path/"file.h5") as file:
        found = file.group("group").array("array", str if array.dtype.kind == "S" else array.dtype, (None,)*array.ndim,
                                          array.nbytes)
    assert found.dtype == array.dtype and np.array_equal(found, array)


def test_a_single_number_is_read_again_as_an_array_and_has_a_checksum(tmp_path):
    with h5py.File(tmp_path/"file.h5", "w", libver=LIBVER) as file:
        write_array(file, "number", np.array(1.7, np.float32))
    with open_h5(tmp_path/"file.h5") as file:
        found = file.array("number", np.float32, ())
    assert type(found) is np.ndarray and found.shape == () and found == np.float32(1.7)
    content = (tmp_path/"file.h5").read_bytes()
    at = content.index(np.float32(1.7).tobytes())
    (tmp_path/"file.h5").write_bytes(content[:at] + b"\x01" + content[at + 1:])
    with pytest.raises(DamagedFile, match="file.h5: expected a whole HDF5 file"), open_h5(tmp_path/"file.h5") as file:
        file.array("number")


def test_a_table_is_read_again_column_by_column_and_has_a_checksum(tmp_path):
    columns = {"epoch": [1, 2, 3], "a loss": [2.5, float("inf"), -0.0], "Fehler %": [1/3, 0.1, float("nan")]}
    with h5py.File(tmp_path/"file.h5", "w") as file:
        write_table(file, "log", columns)
        write_table(file, "empty", {"epoch": []})
        assert file["log"].fletcher32 and file["log"]["a loss"].tolist() == columns["a loss"]
        with pytest.raises(Expected, match=r"log: loss: expected shape \(2,\)"):
            write_table(file, "log", {"loss": [1.0], "epoch": [1, 2]})
    with open_h5(tmp_path/"file.h5") as file:
        found = file.table("log")
        assert file.table("empty")["epoch"].shape == (0,)
        with pytest.raises(Expected, match="at most 71 bytes of data, got 72"):
            file.table("log", most=71)
    assert list(found) == list(columns)
    for name, values in columns.items():
        assert found[name].tobytes() == np.array(values, np.float64).tobytes()
    content = (tmp_path/"file.h5").read_bytes()
    at = content.index(np.float64(2.5).tobytes())
    (tmp_path/"file.h5").write_bytes(content[:at] + b"\x01" + content[at + 1:])
    with open_h5(tmp_path/"file.h5") as file, pytest.raises(Expected, match="/log: expected data that fit their checksum"):
        file.table("log")


@pytest.mark.parametrize("odd", [np.zeros(3), np.zeros(3, [("a", np.float32)]), np.zeros((3, 1), [("a", np.float64)]),
                                 np.array([(1, "b")], [("a", np.float64), ("b", h5py.string_dtype())]), np.array(b"text"),
                                 np.zeros(3, [("a", [("b", np.float64)])]), np.zeros(3, [("a", np.float64, 2)]),
                                 np.zeros(3, [("a", ">f8")]), np.zeros((), [("a", np.float64)]), h5py.Empty(np.float64)],
                         ids=str)
def test_what_is_no_table_of_numbers_is_refused(odd, tmp_path):
    with h5py.File(tmp_path/"file.h5", "w") as file:
        file.create_group("group")
        file.create_dataset("log", data=odd, dtype=odd.dtype)
    with open_h5(tmp_path/"file.h5") as file:
        with pytest.raises(Expected, match="/log: expected a table of float64 columns"):
            file.table("log")
        with pytest.raises(Expected, match="/group: expected a dataset"):
            file.table("group")


def test_odd_names_of_a_tables_columns_are_refused(tmp_path):
    with h5py.File(tmp_path/"file.h5", "w") as file:
        file["log"] = np.zeros(3, [("a\nb", np.float64)])
    with open_h5(tmp_path/"file.h5") as file, pytest.raises(Expected, match="names that can be printed"):
        file.table("log")
