"""Global reference: the paper's multiply–adds, and what is searched, found and weighed."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from base_models import create_model
from base_models import grm as module_under_test
from base_models.grm import Gaussian, patches, search
from base_models.residual import GSDN

GIGA = 1e9
TABLE_2 = {"encoder": 84.12, "decoder": 279.47, "hyper encoder": 2.92, "hyper decoder": 7.62, "context": 11.32,
           "reference": 7.70, "parameters": 24.46}  # fmt: skip
TABLE_3 = {  # positions of y: GFLOP of the entropy model, and percentage of the reference in it
    (320, 240): (9.98, 9.36), (480, 360): (22.85, 10.90), (640, 480): (41.59, 12.98), (768, 512): (54.03, 14.25),
    (1280, 720): (138.04, 21.34), (1920, 1080): (366.57, 33.36), (4096, 2304): (3296.99, 66.28),
}  # fmt: skip


def multiply_adds(layer: nn.Module, output: torch.Tensor) -> int:
    """As the paper counts: every tap of every filter at every position of the output, masked or beside a zero."""
    positions = output.shape[-2] * output.shape[-1]
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return positions * layer.in_channels * layer.out_channels * math.prod(layer.kernel_size)
    matrices = (layer.gamma, layer.tau) if isinstance(layer, GSDN) else ()
    return positions * sum(matrix.numel() for matrix in matrices)


@pytest.fixture(scope="module")
def counted() -> dict[str, float]:
    """GFLOP of the published size at 512×768, each multiply–add two; of the reference without its search."""
    with torch.device("meta"):
        model = create_model("grm").eval()
    parts = {
        "encoder": model.g_a, "decoder": model.g_s, "hyper encoder": model.h_a, "hyper decoder": model.h_s,
        "context": model.context_prediction, "reference": model.reference, "parameters": model.entropy_parameters,
    }  # fmt: skip
    counts = dict.fromkeys(parts, 0.0)

    def count(name):
        def hook(layer, inputs, output):
            counts[name] += 2 * multiply_adds(layer, output) / GIGA

        return hook

    for name, part in parts.items():
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | GSDN):
                layer.register_forward_hook(count(name))
    model.synthesis(model.analysis(torch.empty(1, 3, 512, 768, device="meta")))
    y_hat = torch.empty(1, 384, 32, 48, device="meta")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "autocast", lambda *arguments, **options: nullcontext())  # it knows no such device
        model.walk(model.hyper_analysis(y_hat), 1.0, lambda i, mu, sigma: mu, y_hat)
    return counts


def search_gflop(positions: float, compared: int) -> float:
    """Of comparing all pairs of positions once."""
    return 2 * compared * positions**2 / 2 / GIGA


@cache
def compared_values() -> int:
    """How long the vectors are that the published size compares."""
    with torch.device("meta"):
        model = create_model("grm", hidden=1)
    return patches(torch.empty(1, 384, model.reference.taps, 1)).shape[1]


@pytest.mark.parametrize("part", TABLE_2)
def test_multiply_adds_are_those_of_table_2(counted, part):
    found = counted[part] + (search_gflop(32 * 48, compared_values()) if part == "reference" else 0.0)
    rounded = 0.005 / TABLE_2[part]
    assert found == pytest.approx(TABLE_2[part], rel=max(1e-3, rounded))


@pytest.mark.parametrize("size", TABLE_3)
def test_multiply_adds_of_the_entropy_model_are_those_of_table_3(counted, size):
    positions = size[0] * size[1] / 256
    scale = positions / (32 * 48)
    searching = search_gflop(positions, compared_values())
    rest = sum(value for part, value in counted.items() if part not in ("encoder", "decoder"))
    gflop, percent = TABLE_3[size]
    assert scale * rest + searching == pytest.approx(gflop, rel=1e-3)
    reference = scale * counted["reference"] + searching
    assert 100 * reference / (scale * rest + searching) == pytest.approx(percent, abs=0.02)


class LargestTensor(TorchDispatchMode):
    """Numbers in the largest tensor that anything gave, and multiplications of matrix products."""

    def __init__(self):
        super().__init__()
        self.largest = self.multiplications = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.numel())
            if function is torch.ops.aten.bmm.default:
                self.multiplications += result.numel() * arguments[0].shape[2]
        return result


def unit_vectors(count: int, features: int = 12, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(1, features, count, generator=torch.Generator().manual_seed(seed)).double(), dim=1)


def test_scales_beyond_the_largest_come_back_in_training():
    log_sigma = torch.tensor([9.0, 12.0, 12.0], requires_grad=True)
    sigma = Gaussian(torch.zeros(3), log_sigma).sigma
    assert torch.equal(sigma.detach().log().round(), torch.tensor([9.0, 10.0, 10.0]))
    (gradient,) = torch.autograd.grad((sigma.log() * torch.tensor([1.0, 1.0, -1.0])).sum(), log_sigma)
    torch.testing.assert_close(gradient, torch.tensor([1.0, 1.0, 0.0]))  # down, but not further up


@pytest.mark.parametrize("most", [50 * 700, 1])
def test_search_has_bounded_memory_and_finds_the_same(monkeypatch, most):
    keys, counts = unit_vectors(700), torch.arange(700) // 3 * 3
    whole = search(keys, keys, counts)
    monkeypatch.setattr(module_under_test, "MOST_SIMILARITIES", most)
    with LargestTensor() as watched:
        places, similarity = search(keys, keys, counts)
    assert watched.largest <= max(most, keys.numel())
    assert torch.equal(similarity, whole[1])
    assert torch.equal(places[similarity[:, 0] > 0], whole[0][similarity[:, 0] > 0])


def test_search_compares_little_more_than_what_may_be_referred_to():
    keys = unit_vectors(3000, features=1)
    with LargestTensor() as watched:
        search(keys, keys, torch.arange(3000))
    assert watched.multiplications < 1.1 * 3000**2 / 2


def test_search_finds_the_most_similar_among_those_decoded():
    keys = torch.tensor([[[1.0, 0.0, 0.6, -1.0], [0.0, 1.0, 0.8, 0.0]]])
    queries = torch.tensor([[[0.8, 0.8, 0.8, -0.6, 0.0], [0.6, 0.6, 0.6, -0.8, 0.0]]])
    places, similarity = search(queries, keys, torch.tensor([0, 1, 4, 4, 4]))
    assert similarity[0, 0].tolist() == pytest.approx([0.0, 0.8, 0.96, 0.6, 0.0], abs=1e-4)
    assert places[0, 1:4].tolist() == [0, 2, 3]


def test_the_first_of_equals_is_found_however_many_are_compared_at_once(monkeypatch):
    """Sums of another order differ in the last bits: a decoder compares fewer at once than an encoder."""
    vectors = unit_vectors(40, features=1537)
    keys = vectors.repeat(1, 1, 8)
    expected = torch.arange(40).repeat(8)
    for rows in (1, 3, 320):
        monkeypatch.setattr(module_under_test, "MOST_QUERIES", rows)
        places, similarity = search(keys, keys, torch.full((320,), 320))
        assert torch.equal(places[0], expected)
        assert (similarity == 1).all()


@pytest.fixture(scope="module")
def tiny():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = create_model("grm", N=8, M=16, hidden=24)
    model.update_tables(fit_quantiles=True)
    return model.eval().requires_grad_(False)


@pytest.fixture
def repeating() -> torch.Tensor:
    """ŷ whose lower right quarter is its upper left."""
    y_hat = torch.randn(1, 16, 12, 16, generator=torch.Generator().manual_seed(1)).mul(3).round()
    y_hat[..., 6:, 8:] = y_hat[..., :6, :8]
    return y_hat


def test_explanations_show_where_a_texture_was_before_and_add_up(tiny, repeating):
    z_hat = torch.zeros(1, 8, 3, 4)
    maps = tiny.explanations(z_hat, 1.0, repeating)
    similarity = maps["similarity"][0]
    assert (similarity[7:, 9:-1] == 1).all()
    assert similarity[:6].max() < 0.9
    assert 0 < maps["confidence"].max() <= 1 and maps["confidence"][0, 0, 0] == 0
    tiny.train()  # only then does a walk keep the first prediction
    walk = tiny.walk(z_hat, 1.0, lambda i, mu, sigma: mu, repeating)
    tiny.eval()
    gaussians = [*walk.earlier, (walk.mu, walk.sigma)]
    bits = [-tiny.y_prior.likelihood_at(repeating - mu, sigma).log2().sum((0, 1)) for mu, sigma in gaussians]
    torch.testing.assert_close(maps["saved"], torch.stack([bits[0] - bits[1], bits[1] - bits[2]]))


def test_what_is_referred_to_is_the_position_that_the_texture_was_at(tiny, repeating):
    """Another value there changes what is predicted from it, six rows below and eight columns to the right."""
    z_hat = torch.zeros(1, 8, 3, 4)
    other = repeating.clone()
    other[0, :, 4, 5] += 5
    means = [tiny.walk(z_hat, 1.0, lambda i, mu, sigma: mu, y_hat).mu for y_hat in (repeating, other)]
    changed = (means[0] != means[1]).any(1)[0]
    assert changed[10, 13] and not changed[10, 10]


@pytest.mark.parametrize("missing", ["similarity", "confidence"])
def test_without_similarity_or_confidence_a_reference_changes_nothing(tiny, repeating, monkeypatch, missing):
    """The second prediction is then that of local features alone, by networks 1 and 2."""
    local = tiny.context_prediction(repeating)
    parameters = [network(local) for network in tiny.entropy_parameters]
    nothing = torch.zeros(1, 192, dtype=torch.int64), torch.zeros(1, 1, 192)
    if missing == "similarity":
        monkeypatch.setattr(module_under_test, "search", lambda queries, keys, counts: nothing)
    else:
        monkeypatch.setattr(tiny, "_probability", lambda y_hat, prediction: nothing[1])
    tiny.train()
    walk = tiny.walk(torch.zeros(1, 8, 3, 4), 1.0, lambda i, mu, sigma: mu, repeating)
    tiny.eval()
    log_sigma, mu = (parameters[0] + parameters[1]).chunk(2, 1)
    torch.testing.assert_close(walk.earlier[1][0], mu, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(walk.earlier[1][1], log_sigma.exp(), rtol=1e-4, atol=1e-5)


def test_gradients_go_through_what_is_referred_to_not_through_its_weights(tiny, repeating, monkeypatch):
    """They are the differences that a step of ŷ makes where the place, S and U stay."""
    model, y_hat = copy.deepcopy(tiny).double(), repeating.double()
    direction, weights = (torch.randn(y_hat.shape, dtype=torch.float64) for _ in range(2))

    def weighed(y_hat: torch.Tensor) -> torch.Tensor:
        walk = model.walk(torch.zeros(1, 8, 3, 4, dtype=torch.float64), 1.0, lambda i, mu, sigma: mu, y_hat)
        return ((walk.mu + walk.sigma.log()) * weights).sum()

    y = y_hat.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(weighed(y), y)
    found, probability = [], []
    find, judge = module_under_test.search, model._probability
    monkeypatch.setattr(module_under_test, "search", lambda *given: found.append(find(*given)) or found[0])
    monkeypatch.setattr(model, "_probability", lambda *given: probability.append(judge(*given)) or probability[0])
    weighed(y_hat)
    difference = (weighed(y_hat + 1e-4 * direction) - weighed(y_hat - 1e-4 * direction)) / 2e-4
    assert float(difference) == pytest.approx(float((gradient * direction).sum()), rel=1e-4)


def test_training_gives_likelihoods_by_all_three_predictions(tiny):
    x = torch.rand(2, 3, 64, 64)
    assert set(tiny(x)["likelihoods"]) == {"y", "z"}
    tiny.train()
    likelihoods = tiny(x)["likelihoods"]
    tiny.eval()
    assert set(likelihoods) == {"y", "y1", "y2", "z"}
    assert len({float(likelihoods[name].log().sum()) for name in ("y", "y1", "y2")}) == 3


@pytest.mark.parametrize("gsdn", [True, False])
def test_without_reference_the_hyperprior_follows_local_context(gsdn):
    """Nothing far away tells anything, there are two predictions, and a decoder walks as an encoder does."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = create_model("grm", N=8, M=16, hidden=24, reference=False, gsdn=gsdn).eval().requires_grad_(False)
    assert any(isinstance(layer, GSDN) for layer in model.modules()) == gsdn
    x, z_hat = torch.rand(1, 3, 64, 128), torch.randn(1, 8, 1, 2)
    y_hat = model.analysis(x).mul(20).round()
    known = model.walk(z_hat, 1.0, lambda i, mu, sigma: mu, y_hat)
    parts = model.split_y(y_hat)
    serial = model.walk(z_hat, 1.0, lambda i, mu, sigma: parts[i])
    for one, other in zip(known[:3], serial[:3], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    changed = y_hat.clone()
    changed[..., 0, 0] += 5
    moved = (model.walk(z_hat, 1.0, lambda i, mu, sigma: mu, changed).mu != known.mu).any(1)[0]
    assert moved[:3, :3].any() and not moved[:, 3:].any()
    assert model.explanations(z_hat, 1.0, y_hat).keys() == {"saved"}
    assert set(model.train()(x)["likelihoods"]) == {"y", "y1", "z"}


@pytest.mark.parametrize("field", ["reference", "gsdn"])
def test_a_switch_is_true_or_false(field):
    with pytest.raises(ValueError, match=f"{field} is 2"):
        create_model("grm", **{field: 2})
