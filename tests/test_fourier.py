"""Convolutions through Fourier transforms, beside those of torch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from catmorph.inference import fourier
from catmorph.inference.fourier import FourierConvolution, Plan, fourier_where_it_pays
from catmorph.models import build


def replaced(module):
    return [name for name, layer in module.named_modules() if isinstance(layer, FourierConvolution)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.data())
def test_it_is_the_convolution(channels, width, data):
    """Any kernel, margin and map, odd and even, taller than wide: what torch gives in float64, to float32."""
    kernel = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    margin = tuple(data.draw(st.integers(0, side - 1)) for side in kernel)
    maps = tuple(data.draw(st.integers(max(1, side - edge), 14)) for side, edge in zip(kernel, margin, strict=True))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    layer = nn.Conv2d(channels, width, kernel, padding=margin, bias=data.draw(st.booleans())).requires_grad_(False)
    inputs = torch.randn(2, channels, *maps, generator=random)
    outputs = FourierConvolution(layer, Plan(channels, width, kernel, margin, maps))(inputs)
    wanted = layer.double()(inputs.double())
    assert outputs.shape == wanted.shape
    scale = layer.weight.abs().sum((1, 2, 3)).max() * inputs.abs().max()
    assert (outputs - wanted).abs().max() < 3e-6 * scale


def test_it_is_as_exact_as_torch_on_maps_as_they_are():
    layer = nn.Conv2d(64, 128, 6).requires_grad_(False)
    inputs = torch.relu(torch.randn(4, 64, 37, 37, generator=torch.Generator().manual_seed(0)))
    plan = Plan(64, 128, (6, 6), (0, 0), (37, 37))
    outputs, direct = FourierConvolution(layer, plan)(inputs), layer(inputs)
    exact = layer.double()(inputs.double())
    assert (outputs - exact).std() < 2 * (direct - exact).std()


def test_the_large_kernels_of_a_network_are_replaced():
    module = fourier_where_it_pays(build("clash-inception", seed=0).eval(), (1, 80, 80))
    assert replaced(module) == [
        "conv2.conv", "inception2.conv5.conv", "inception4.conv5.conv", "inception5.conv5.conv"]
    assert replaced(fourier_where_it_pays(build("timm/resnet18", seed=0, channels=3).eval(), (3, 64, 64))) == []


@pytest.mark.parametrize("change", [
    {"stride": 2}, {"dilation": 2}, {"groups": 4}, {"padding": "same"}, {"padding_mode": "reflect", "padding": 2},
])  # fmt: skip
def test_other_convolutions_are_left_alone(monkeypatch, change):
    monkeypatch.setattr(fourier, "LEAST_GAIN", 0.0)
    module = nn.Sequential(nn.Conv2d(4, 8, 5, **change), nn.Conv2d(8, 8, 3)).eval()
    assert replaced(fourier_where_it_pays(module, (4, 24, 24))) == ["1"]


class Doubled(nn.Conv2d):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


def test_convolutions_that_do_more_are_left_alone(monkeypatch):
    monkeypatch.setattr(fourier, "LEAST_GAIN", 0.0)
    hooked = nn.Conv2d(8, 8, 3)
    hooked.register_forward_pre_hook(lambda layer, inputs: (2 * inputs[0],))
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3))
    module = nn.Sequential(Doubled(4, 8, 5), hooked, normed, nn.Conv2d(8, 8, 3)).eval()
    assert replaced(fourier_where_it_pays(module, (4, 24, 24))) == ["3"]


class Pyramid(nn.Module):
    """Uses one of its layers at two sizes, and another not at all."""

    def __init__(self):
        super().__init__()
        self.shared, self.unused, self.last = nn.Conv2d(8, 8, 5, padding=2), nn.Conv2d(8, 8, 5), nn.Conv2d(8, 8, 5)

    def forward(self, inputs):
        return self.last(self.shared(self.shared(inputs)[:, :, ::2]))


def test_a_layer_of_two_sizes_is_left_alone(monkeypatch):
    monkeypatch.setattr(fourier, "LEAST_GAIN", 0.0)
    module, inputs = Pyramid().eval().requires_grad_(False), torch.randn(2, 8, 20, 20)
    wanted = module(inputs)
    assert replaced(fourier_where_it_pays(module, (8, 20, 20))) == ["last"]
    np.testing.assert_allclose(module(inputs).numpy(), wanted.numpy(), atol=1e-5)


def test_weights_that_would_be_too_large_are_left_alone(monkeypatch):
    plan = Plan(64, 128, (6, 6), (0, 0), (37, 37))
    assert plan.weight_bytes == FourierConvolution(nn.Conv2d(64, 128, 6), plan).weights.nbytes
    small = ["inception2.conv5.conv", "inception4.conv5.conv", "inception5.conv5.conv"]
    for limit, wanted in ((plan.weight_bytes - 1, small), (plan.weight_bytes, ["conv2.conv"])):
        monkeypatch.setattr(fourier, "LARGEST_BYTES", limit)
        assert replaced(fourier_where_it_pays(build("clash-inception", seed=0).eval(), (1, 80, 80))) == wanted
