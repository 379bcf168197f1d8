"""Which table codes a symbol on the integer grid."""

import numpy as np

from base_models.derived_tables import FRACTIONS
from tto.table_choice import ByScaleAndFraction


def test_a_place_stands_for_the_fractions_around_it():
    """A table's mean is the middle of its place, so μ is never further than half a place from it."""
    mu = np.random.default_rng(0).uniform(-40, 40, 5000)
    centre = ByScaleAndFraction(np.array([0.11, 1.0, 4.0])).centre(mu, None)
    assert centre.place.min() >= 0 and centre.place.max() == FRACTIONS - 1
    middle = centre.shift + (centre.place + 0.5) / FRACTIONS - 0.5
    assert np.abs(middle - mu).max() <= 0.5 / FRACTIONS + 1e-12
