"""Tables that are computed anew on every machine: the integers that all files on the integer grid rest on."""

from __future__ import annotations

from hashlib import sha256

import numpy as np

from base_models.derived_tables import rescaled_tables, shifted_gaussian_tables
from base_models.tables import IntegerTables


def digest(tables: IntegerTables) -> str:
    found = sha256()
    for numbers in (tables.cdfs, tables.lengths, tables.offsets):
        found.update(np.ascontiguousarray(numbers, "<i8").tobytes())
    return found.hexdigest()


def test_tables_are_the_same_integers_on_every_machine():
    gaussians = shifted_gaussian_tables(np.array([0.11, 1.0, 4.0]))
    assert digest(gaussians) == "ecc33d616894d003326caa6da0d5adf9dc8a6f021c02ebace041218f774ff057"
    rescaled = rescaled_tables(gaussians, 1.375)
    assert digest(rescaled) == "db8daf2bf17f2a2a05fff185c8c6391448a007e0ad500399347d56cdfd107fb0"
