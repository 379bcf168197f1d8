"""A new operation and a new kind of side information: each is its own classes and one line where the others stand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

from tto.codec import Codec
from tto.container import SectionType, read
from tto.explain import explain
from tto.image import load_picture
from tto.refine.operation import Operation, SideSearch
from tto.refine.plan import stages_for
from tto.refine.presets import EFFORTS, steps_of
from tto.side.coder import KINDS, SideCoder
from tto.side.compensation import CompensationCoder
from tto.side.side import Part, PartCoder
from tto.side.transform import TransformCoder


@dataclass(frozen=True)
class Brightness(Part):
    """One byte: so many levels less 128 are added to every pixel. It borrows the transform's section."""

    section = SectionType.SYNTAX
    place = 30

    body: bytes

    def on_picture(self, x_hat):
        return x_hat + (self.body[0] - 128) / 255


class BrightnessCoder(PartCoder):
    part = Brightness

    def make(self, levels: int) -> Brightness:
        return Brightness(bytes([levels + 128]) if levels else b"")

    def read(self, body, size):
        return Brightness(body)


@dataclass(frozen=True)
class FitBrightness(SideSearch):
    steps: int = 1

    def search(self, problem, candidate, keep_on):
        x_hat = problem.judge(candidate.y, candidate.z, candidate.qp).x_hat
        levels = round(255 * float((problem.distortion.target() - x_hat).mean()))
        side = problem.side.with_(problem.side_coder[BrightnessCoder].make(levels))
        found = replace(problem, side=side).candidate(candidate.y, candidate.z, candidate.qp)
        best = min(candidate, found, key=lambda one: one.J)
        keep_on(best)
        return best

    def possible(self, problem):
        return BrightnessCoder in problem.side_coder


@dataclass(frozen=True)
class Shrink(Operation):
    """Latents that are a little smaller may be cheaper."""

    steps: int

    def run(self, state):
        for _ in state.parts(self.steps):
            state.keep(state.problem.candidate(0.9 * state.y, state.z, state.qp))


@pytest.fixture
def codec(tiny_codec, monkeypatch):
    codec = Codec(tiny_codec.model, device="cpu")
    codec.side_coder = SideCoder(kinds=(*(kind for kind in KINDS if kind is not TransformCoder), BrightnessCoder))
    monkeypatch.delitem(EFFORTS, "max")
    monkeypatch.setitem(EFFORTS, "best", ((Shrink(2), FitBrightness()),))
    return codec


def test_both_reach_the_file_and_its_decoder(codec):
    picture = load_picture(Image.new("RGB", (70, 50), (10, 10, 10)))  # darker than what this network knows
    result = codec.compress(picture.to_pil(), effort="best", lambda_=1.0)
    container = read(result.data)
    assert container.sections[SectionType.SYNTAX] == codec.read_side(container).get(Brightness).body
    assert result.base_J > result.J and result.steps == 3
    assert np.array_equal(np.asarray(codec.decompress(result.data)), np.asarray(result.image))
    assert "bits.png" in explain(codec, picture, result.data)


def test_they_are_planned_like_the_others(codec, problem):
    ours = replace(problem, side_coder=codec.side_coder)
    assert steps_of(stages_for(200, ours)) == 200
    assert {type(operation) for operation in stages_for(200, ours)[0]} == {Shrink, FitBrightness}
    assert stages_for(200, problem) == ((Shrink(200),),)


def test_what_cannot_run_is_no_operation():
    @dataclass(frozen=True)
    class Idle(Operation):
        steps: int

    with pytest.raises(TypeError, match="run"):
        Idle(1)


def test_kinds_of_side_modules_are_refused_by_a_model_without(codec):
    assert CompensationCoder not in codec.side_coder and BrightnessCoder in codec.side_coder
