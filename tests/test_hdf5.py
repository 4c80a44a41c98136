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
