"""Means over what is known."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zfcore.analysis.known import mean_of_known

VALUE = st.one_of(st.integers(-9, 9).map(float), st.just(np.nan))


@pytest.mark.filterwarnings("error")
@given(st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(VALUE, min_size=width, max_size=width), min_size=1, max_size=6)))
def test_each_columns_mean_is_that_of_its_numbers_and_tells_how_many_they_are(rows):
    means, counts = mean_of_known(np.array(rows))
    for mean, count, column in zip(means, counts, zip(*rows)):
        known = [value for value in column if value == value]
        assert count == len(known) and (np.isnan(mean) if not known else mean == pytest.approx(sum(known)/count))
