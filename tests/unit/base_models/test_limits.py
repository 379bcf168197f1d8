"""Coding tables that cannot code."""

from __future__ import annotations

import pytest
import torch

from base_models.entropy_models import FactorizedPrior
from base_models.limits import check_coding_tables, check_lambdas, check_scale_table
from base_models.tables import IntegerTables


def tables(**changes) -> IntegerTables:
    """Two tables, the first shorter, with parts replaced by what a function makes of them."""
    parts = {
        "cdfs": torch.tensor([[0, 9, 65530, 65536, 0], [0, 1, 60000, 65535, 65536]], dtype=torch.int32),
        "lengths": torch.tensor([4, 5], dtype=torch.int32),
        "offsets": torch.tensor([-1, -2], dtype=torch.int32),
    }
    parts = {key: changes[key](value) if key in changes else value for key, value in parts.items()}
    return IntegerTables(**{key: value.numpy() for key, value in parts.items()})


def test_tables_that_can_code_pass():
    check_coding_tables("z", tables(), 2)
    check_scale_table(torch.tensor([0.11, 0.2, 256]))


@pytest.mark.parametrize(
    ("table", "change", "words"),
    [
        ("cdfs", torch.zeros_like, "does not rise"),
        ("cdfs", lambda t: -t, "does not rise"),
        ("cdfs", lambda t: 1000 * t, "does not rise"),
        ("cdfs", lambda t: t + 1, "does not rise"),
        ("cdfs", lambda t: t.clamp(max=65535), "does not rise"),
        ("cdfs", lambda t: t.index_fill(1, torch.tensor(1), 0), "does not rise"),
        ("cdfs", lambda t: t.flip(1), "does not rise"),
        ("cdfs", lambda t: t[:, :4], "length that cannot be"),
        ("cdfs", lambda t: t[:1], "expected 2 tables"),
        ("cdfs", lambda t: t[0], "expected 2 tables"),
        ("lengths", torch.zeros_like, "length that cannot be"),
        ("lengths", lambda t: t + 1, "length that cannot be"),
        ("lengths", lambda t: t - 1, "does not rise"),
        ("lengths", lambda t: t[:1], "expected 2 tables"),
        ("offsets", lambda t: t[:1], "expected 2 tables"),
        ("offsets", lambda t: t - (1 << 20), "begins at a symbol"),
    ],
)
def test_tables_that_cannot_code_are_refused(table, change, words):
    with pytest.raises(ValueError, match=f"z has .*{words}"):
        check_coding_tables("z", tables(**{table: change}), 2)


@pytest.mark.parametrize(
    "scales", [[], [0.1], [0.2, 0.1], [0.1, 0.1], [0.0, 1.0], [-1.0, 1.0], [0.1, torch.inf], range(1, 300)]
)
def test_levels_of_sigma_that_do_not_ascend_are_refused(scales):
    with pytest.raises(ValueError, match="levels of sigma"):
        check_scale_table(torch.tensor(list(scales), dtype=torch.float32))


@pytest.mark.parametrize("lambdas", [(1e-300, 0.1), (0.1, 1e300), (float("nan"),)])
def test_rates_that_no_arithmetic_can_take_are_refused(lambdas):
    with pytest.raises(ValueError, match="expected numbers from 1e-09 to 1e"):
        check_lambdas(lambdas)


def test_a_table_of_sigma_beyond_what_can_be_coded_is_refused():
    check_scale_table(torch.tensor([0.1, 256.0]))
    for last in (3e4, 1e30, float("inf")):
        with pytest.raises(ValueError, match="levels of sigma"):
            check_scale_table(torch.tensor([0.1, last]))


@pytest.mark.parametrize("reach", [3e5, 1e9, float("nan")])
def test_quantiles_that_would_make_endless_tables_are_refused(reach):
    prior = FactorizedPrior(4)
    with torch.no_grad():
        prior.quantiles[:, 0, 2] = reach
    with pytest.raises(ValueError, match="from zero"):
        prior.update_tables()
