"""Which table codes each symbol of y, so that every machine chooses the same.

A *place* is what fixes a table but for σ: nothing, or the fraction of μ on the integer grid, or the channel under a
factorized prior. It comes from μ, which like σ is computed in float64; where either lies too close to a boundary, the
encoder lists the index.

All arrays are those of one part, flat, [n].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from base_models.derived_tables import FRACTIONS
from tto.entropy_coding import BOUNDARY_MARGIN, scale_indexes


@dataclass(frozen=True)
class Centre:
    """What rounding is done around: `shift` whole steps int64, which are not coded, and the place of each table."""

    shift: np.ndarray
    place: np.ndarray
    near: np.ndarray


@dataclass(frozen=True)
class ByScale:
    """Tables by the level of σ: symbols are centred on μ."""

    scale_table: np.ndarray
    index_type = np.dtype("u1")
    places = 1

    def centre(self, mu: np.ndarray, channels: np.ndarray | None) -> Centre:
        """Of μ in steps; `channels` of y are for tables that depend on them."""
        zeros = np.broadcast_to(np.int64(0), mu.shape)
        return Centre(zeros, zeros, np.broadcast_to(False, mu.shape))

    def indexes(self, sigma: np.ndarray | None, centre: Centre) -> tuple[np.ndarray, np.ndarray]:
        """Tables for σ in steps, and where they may differ elsewhere."""
        assert sigma is not None
        levels, near = scale_indexes(sigma, self.scale_table)
        levels = levels.astype(self.index_type)
        return levels * self.places + centre.place.astype(self.index_type), near | centre.near

    def replace(self, centre: Centre, indexes: np.ndarray, position: int, index: int) -> None:
        """Puts a listed index in its place. Raises `ValueError` where it cannot be one."""
        if index >= len(self.scale_table):
            raise ValueError("an index is out of range")
        indexes[position] = index


@dataclass(frozen=True)
class ByScaleAndFraction(ByScale):
    """Tables by the level of σ and the place of μ's fraction: ŷ is a whole number of steps."""

    index_type = np.dtype("<u2")
    places = FRACTIONS

    def centre(self, mu: np.ndarray, channels: np.ndarray | None) -> Centre:
        scaled = (mu + 0.5) * FRACTIONS
        nearest = np.round(scaled)
        near = np.abs(scaled - nearest) < BOUNDARY_MARGIN * FRACTIONS * np.maximum(np.abs(mu), 1.0)
        whole = np.floor(scaled).astype(np.int64)
        return Centre(whole // FRACTIONS, whole % FRACTIONS, near)

    def replace(self, centre: Centre, indexes: np.ndarray, position: int, index: int) -> None:
        """A fraction on the other side of a boundary may take the whole part with it."""
        if index >= len(self.scale_table) * FRACTIONS:
            raise ValueError("an index is out of range")
        moved = (index - centre.place[position] + 1) % FRACTIONS - 1
        if abs(moved) > 1:
            raise ValueError("an index is not that of a neighbour")
        centre.shift[position] += (centre.place[position] + moved) // FRACTIONS
        indexes[position] = index


@dataclass(frozen=True)
class ByChannel:
    """Tables by the channel of y."""

    index_type = np.dtype("<u2")

    def centre(self, mu: np.ndarray, channels: np.ndarray | None) -> Centre:
        assert channels is not None
        zeros = np.zeros(len(mu), np.int64)
        return Centre(zeros, channels, zeros.astype(bool))

    def indexes(self, sigma: np.ndarray | None, centre: Centre) -> tuple[np.ndarray, np.ndarray]:
        return centre.place.astype(self.index_type), centre.near

    def replace(self, centre: Centre, indexes: np.ndarray, position: int, index: int) -> None:
        raise ValueError("indexes of a factorized prior are not listed")


TableChoice = ByScale | ByChannel
