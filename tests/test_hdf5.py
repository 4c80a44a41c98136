"""The reader of HDF5: a name is the name of one thing in one group."""
import h5py
import numpy as np
import pytest

from zfcore.check import Expected
from zfcore.hdf5 import open_h5


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
