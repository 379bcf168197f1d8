"""Which table codes a symbol on the integer grid."""

import numpy as np
import pytest

from base_models.derived_tables import FRACTIONS
from tto.table_choice import ByScaleAndFraction


def test_a_place_stands_for_the_fractions_around_it():
    """A table's mean is the middle of its place, so μ is never further than half a place from it."""
    mu = np.random.default_rng(0).uniform(-40, 40, 5000)
    centre = ByScaleAndFraction(np.array([0.11, 1.0, 4.0])).centre(mu, None)
    assert centre.place.min() >= 0 and centre.place.max() == FRACTIONS - 1
    middle = centre.shift + (centre.place + 0.5) / FRACTIONS - 0.5
    assert np.abs(middle - mu).max() <= 0.5 / FRACTIONS + 1e-12


@pytest.mark.parametrize("boundary", [-0.5, 0.0, 3.25, 3.5])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_listed_index_gives_the_encoders_rounding_where_mu_fell_on_the_other_side(boundary, side):
    """At −0.5 and 3.5 the whole part changes, too."""
    choice, sigma = ByScaleAndFraction(np.array([0.11, 1.0, 4.0])), np.array([0.5])
    encoders, decoders = (choice.centre(np.array([boundary + way * 1e-12]), None) for way in (side, -side))
    (wanted, near), (found, _) = (choice.indexes(sigma, centre) for centre in (encoders, decoders))
    assert near.all() and found[0] != wanted[0]
    choice.replace(decoders, found, 0, int(wanted[0]))
    assert (decoders.shift[0], found[0]) == (encoders.shift[0], wanted[0])


def test_a_listed_index_that_is_no_neighbours_is_refused():
    choice = ByScaleAndFraction(np.array([0.11, 1.0, 4.0]))
    centre = choice.centre(np.array([0.0]), None)
    indexes, _ = choice.indexes(np.array([0.5]), centre)
    with pytest.raises(ValueError, match="not that of a neighbour"):
        choice.replace(centre, indexes, 0, int(indexes[0]) + 2)
