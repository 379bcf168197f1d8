"""Tables that no checkpoint has, the same on every machine: their floats come from +, −, · and / alone, one at a time.

A Gaussian that is not centred on an integer (models on the integer grid) has a table for each level of σ and each of
`FRACTIONS` places of μ between integers. A factorized prior has tables for steps other than 1.

Elsewhere a decoder recomputes no table from floats: it has the checkpoint's integers. These deviate from that, being
made when a model is loaded or a file decoded, and are as exact: in float64, IEEE 754 rounds each of the four operations
the same way everywhere, every one is an array operation of its own (so that none are contracted), sums are of whole
numbers or of multiples of 2⁻¹⁶, and what they start from are the checkpoint's own levels and integers.
"""

from __future__ import annotations

import numpy as np

from .tables import TOTAL, IntegerTables

FRACTIONS = 16
"""Places of μ's fraction, −½ to ½, that are told apart: entry f stands for (f + ½)/16 − ½."""
REACH = 6
"""A table reaches so many σ to either side, and two entries more."""
ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
ERF_SCALE = 0.3275911
"""Abramowitz & Stegun 7.1.26: erf to 1.5e-7, a hundredth of the smallest frequency."""


def shifted_gaussian_tables(scales: np.ndarray) -> IntegerTables:
    """Tables of rounded Gaussians: number σ's level · `FRACTIONS` + the fraction's place. `scales` float64 [levels]."""
    reaches = (REACH * scales).astype(np.int64) + 2
    longest = 2 * int(reaches.max()) + 1
    cdfs = np.zeros((len(scales) * FRACTIONS, longest + 2), np.int32)
    places = (np.arange(FRACTIONS) + 0.5) / FRACTIONS - 0.5
    for level, (scale, reach) in enumerate(zip(scales, reaches.tolist(), strict=True)):
        ends = (np.arange(-reach, reach + 2) - 0.5 - places[:, None]) / scale  # [FRACTIONS, symbols + 1]
        for row, masses in enumerate(np.diff(_normal_cdf(ends), axis=1), level * FRACTIONS):
            frequencies = _frequencies(np.append(masses, 0.0))
            cdfs[row, 1 : len(frequencies) + 1] = np.cumsum(frequencies)
    return IntegerTables(cdfs, np.repeat(2 * reaches + 3, FRACTIONS), np.repeat(-reaches, FRACTIONS))


def rescaled_tables(tables: IntegerTables, step: float) -> IntegerTables:
    """Tables for symbols of another step, where each symbol's probability is spread evenly over its unit cell."""
    rows, offsets = [], []
    for table, offset in enumerate(tables.offsets.tolist()):
        below = np.concatenate([[0.0], np.cumsum(tables.frequencies(table)[:-1] / TOTAL)])  # at offset − ½, …
        first, last = offset - 0.5, offset - 1.5 + len(below)
        low, high = int(np.floor(first / step + 0.5)), int(np.ceil(last / step - 0.5))
        place = np.clip((np.arange(low, high + 2) - 0.5) * step - first, 0.0, last - first)
        whole = np.minimum(place.astype(np.int64), len(below) - 2)
        cumulative = below[whole] + (below[whole + 1] - below[whole]) * (place - whole)
        rows.append(_frequencies(np.append(np.diff(cumulative), 1.0 - below[-1])))
        offsets.append(low)
    lengths = np.array([len(row) + 1 for row in rows])
    cdfs = np.zeros((len(rows), int(lengths.max(initial=1))), np.int32)
    for row, frequencies in zip(cdfs, rows, strict=True):
        row[1 : len(frequencies) + 1] = np.cumsum(frequencies)
    return IntegerTables(cdfs, lengths, np.array(offsets))


def _frequencies(masses: np.ndarray) -> np.ndarray:
    """Integers of sum `TOTAL`, each at least 1: ⌊c·mass⌋ with the largest whole c that leaves room for the ones, and
    the rest to the first of the largest.
    """
    low, high = 0, TOTAL  # what fits, and what may not
    if np.maximum(np.floor(masses * high), 1).sum() > TOTAL:
        while high - low > 1:
            middle = (low + high) // 2
            fits = np.maximum(np.floor(masses * middle), 1).sum() <= TOTAL
            low, high = (middle, high) if fits else (low, middle)
    else:
        low = high
    frequencies = np.maximum(np.floor(masses * low), 1).astype(np.int64)
    frequencies[np.argmax(frequencies)] += TOTAL - int(frequencies.sum())
    return frequencies


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    """Φ: no library's exponential or error function, which differ between machines in the last bit."""
    distance = np.abs(x) * 0.5**0.5
    t = 1.0 / (1.0 + ERF_SCALE * distance)
    series = ERF[4]
    for coefficient in ERF[3::-1]:
        series = series * t + coefficient
    half = 0.5 * (series * t * _exp_of_minus(distance * distance))
    return np.where(x < 0, half, 1.0 - half)


def _exp_of_minus(x: np.ndarray) -> np.ndarray:
    """exp(−x) for x ≥ 0: the series at −x/1024, squared ten times."""
    small = np.minimum(x, 100.0) / -1024
    value = np.ones_like(small)
    for n in range(8, 0, -1):
        value = 1.0 + value * small / n
    for _ in range(10):
        value = value * value
    return value
