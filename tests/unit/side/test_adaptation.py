"""Changes of the last weights as bytes, and the network that they make."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from base_models import create_model
from tto.errors import CorruptFile
from tto.side.adaptation import (
    LARGEST_SUM,
    Adaptation,
    AdaptationCoder,
    Changes,
    changed,
    decode_changes,
    encode_changes,
    scale_of,
)

CODER = AdaptationCoder(None, torch.device("cpu"))


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_model("mbt2018-mean", N=8, M=12).eval().requires_grad_(False)


@pytest.fixture
def changes(model) -> Changes:
    """Of ranks 1, 2, …, with some tensors left as they are."""
    random, found = np.random.default_rng(1), []
    for number, tensor in enumerate(model.last_weights().values()):
        rank = number % 3
        if not rank:
            found.append(())
        elif tensor.dim() == 1:
            found.append((random.integers(-9, 9, len(tensor)),))
        else:
            sizes = (len(tensor), rank), (rank, tensor[0].numel())
            found.append(tuple(random.integers(-20, 20, size) for size in sizes))
    return Changes(tuple(found), 5)


def test_changes_come_back_from_their_bytes(model, changes):
    found = decode_changes(encode_changes(changes), list(model.last_weights().values()))
    assert found.exponent == 5
    assert [len(change) for change in found.changes] == [len(change) for change in changes.changes]
    for ours, theirs in zip(changes.changes, found.changes, strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_changes_have_the_bytes_of_the_format():
    """A weight of ranks 1 and 4, a bias, and a tensor that stays."""
    weight, wide = (np.array([[3], [-1]]), np.array([[0, 2, -40]])), (np.eye(4, dtype=int), 2 * np.eye(4, dtype=int))
    changes = Changes((weight, (), (np.array([5, 0, -7]),), wide), 6)
    assert encode_changes(changes).hex() == "06c9dfd2b875d74ed2110e5aa8f7483668"


def test_a_weight_gets_the_product_of_its_factors_in_units_of_its_own_size():
    weight = torch.tensor([[3.0, -3.0], [3.0, 3.0]])
    left, right = torch.tensor([[1.0], [0.5]]), torch.tensor([[0.25, 2.0]])
    assert scale_of(weight) == 3.0
    assert changed(weight, [left, right]).tolist() == [[3.75, 3.0], [3.375, 6.0]]
    assert changed(torch.tensor([1.0, -1.0]), [torch.tensor([0.5, 0.0])]).tolist() == [1.5, -1.0]


def test_the_network_of_a_picture_differs_in_these_weights_alone(model, changes):
    own = CODER.make(changes).on_network(model)
    before, after = model.last_weights(), own.last_weights()
    for (name, tensor), change in zip(before.items(), changes.changes, strict=True):
        assert torch.equal(after[name], tensor) is not bool(change)
    assert own.h_s is model.h_s and own.g_s[0].weight is model.g_s[0].weight
    y_hat = torch.randn(1, 12, 4, 4)
    assert not torch.equal(own.synthesis(y_hat), model.synthesis(y_hat))
    assert CODER.read(CODER.make(changes).body, (4, 4)).on_network(model).g_s[-1].weight.equal(own.g_s[-1].weight)


def test_a_network_is_made_once(model, changes):
    part = CODER.make(changes)
    assert part.on_network(model) is part.on_network(model)


def test_without_changes_it_says_nothing(model):
    assert CODER.make(Changes(((),) * len(model.last_weights()), 4)).body == b""


@pytest.mark.parametrize(("body", "said"), [(b"", "it is empty"), (b"\x10abc", "exponent 16")])
def test_a_damaged_section_is_named(model, body, said):
    with pytest.raises(CorruptFile, match=said):
        Adaptation(body).on_network(model)


def test_levels_that_cost_nothing_but_time_are_refused():
    tensor = torch.ones(200, 200)
    for level, fits in ((LARGEST_SUM // 400, True), (127, False)):
        change = (np.full((200, 1), level), np.full((1, 200), level))
        body = encode_changes(Changes((change,), 15))
        assert len(body) < 500
        assert bool(CODER.make(Changes((change,), 15)).body) is fits
        if fits:
            assert decode_changes(body, [tensor]).changes[0][0][0, 0] == level
        else:
            with pytest.raises(CorruptFile, match="sum to more than 32768"):
                decode_changes(body, [tensor])


@pytest.mark.parametrize("body", [b"", b"\x10", encode_changes(Changes(((), ()), 3))])
def test_a_change_of_nothing_is_refused(body):
    with pytest.raises(CorruptFile):
        CODER.read(body, (4, 4)).on_network(create_model("mbt2018-mean", N=8, M=12))


def test_a_bias_has_no_second_rank(model):
    tensors = list(model.last_weights().values())
    twice = np.ones((len(tensors[0]), 2), int), np.ones((2, tensors[0][0].numel()), int)
    with pytest.raises(CorruptFile, match="rank 2 where 1 is the highest"):
        decode_changes(encode_changes(Changes((twice,), 3)), [tensors[1]])
