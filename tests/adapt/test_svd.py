"""SVD affine layers against S-SAM's own code, float64 and their merged twins."""

from functools import partial

import pytest
import torch
from oracle import assert_close, fill, read, tensor
from torch import nn

from medsaga_lib.adapt.svd import SVDAffine, SVDLayer
from medsaga_lib.models.sam import build_sam

LAYERS = read("svd_layers")["cases"]
# Its frozen shift is 1 instead of 0, so that the untouched layer is no identity: not followed.
HALF = "svd_linear_8_8_half_trainable"


def filled(case, name):
    described = LAYERS[case]["state_dict"].get(name)
    if described is None:
        return None
    return torch.from_numpy(fill.fill(described["name"], described["shape"], "fan_in"))


def plain_layer(case):
    """The layer from which the reference made its factors."""
    weight, bias = filled(case, "weight"), filled(case, "bias")
    if weight.ndim == 2:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    else:
        out, inputs, *kernel = weight.shape
        stride = 4 if case.endswith("s4") else 1
        padding = 1 if case == "svd_conv_4_6_k3" else 0
        layer = nn.Conv2d(inputs, out, kernel, stride, padding, bias=bias is not None)
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer


@pytest.mark.parametrize("case", [case for case in LAYERS if case != HALF])
def test_layer_equals_the_reference(case):
    stored = LAYERS[case]
    layer, x = SVDLayer(plain_layer(case)), tensor(stored["x"])
    assert_close(stored["singular_values"], layer.singular)
    assert_close(stored["y_identity"], layer(x), rtol=1e-5)
    with torch.no_grad():
        layer.scale.copy_(torch.tensor(stored["scale"]["values"]))
        layer.shift.copy_(torch.tensor(stored["shift"]["values"]))
    assert int((layer.values() == 0).sum()) == stored["relu_clips"]
    rtol = 1e-4 if stored["min_singular_gap"] > 0.05 else 1e-3  # the oracle's own tolerance
    assert_close(stored["y_adapted"], layer(x), rtol)
    torch.testing.assert_close(layer.merged()(x), layer(x), atol=1e-5, rtol=1e-5)


def test_frozen_shift_of_ones_is_not_followed():
    """Half frozen, the reference changes its layer before training. Ours leaves it as it is."""
    stored = LAYERS[HALF]
    layer, x = plain_layer(HALF), tensor(stored["x"])
    theirs = torch.tensor(stored["y_identity"]["values"]).reshape(stored["y_identity"]["shape"])
    assert (theirs - layer(x)).abs().max() > 0.5
    torch.testing.assert_close(SVDLayer(layer)(x), layer(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_gradients_equal_those_of_the_whole_matrix(kind):
    torch.manual_seed(0)
    if kind == "linear":
        plain, x = nn.Linear(6, 9), torch.randn(4, 6)
    else:
        plain, x = nn.Conv2d(3, 5, 3, padding=1), torch.randn(2, 3, 7, 7)
    layer = SVDLayer(plain).double()
    x = x.double().requires_grad_()
    layer(x).square().sum().backward()
    got = [layer.scale.grad, layer.shift.grad, x.grad]

    a, b = (p.detach().clone().requires_grad_() for p in (layer.scale, layer.shift))
    weight = (layer.left * torch.relu(a * layer.singular + b)) @ layer.right
    weight, again = weight.unflatten(1, layer.kernel), x.detach().requires_grad_()
    if kind == "linear":
        out = nn.functional.linear(again, weight, layer.bias)
    else:
        out = nn.functional.conv2d(again, weight, layer.bias, padding=1)
    out.square().sum().backward()
    for ours, theirs in zip(got, (a.grad, b.grad, again.grad), strict=True):
        torch.testing.assert_close(ours, theirs)


# TinyViT: 10 blocks at random, whose LayerNorms see the rounding of small numbers
@pytest.mark.parametrize(("name", "close"), [("pocket", 1e-5), ("mobile_sam", 1e-4)])
def test_encoder_is_the_same_before_training_and_after_merging(name, close):
    torch.manual_seed(0)
    encoder, image = build_sam(name, 64).image_encoder.eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before, keys = encoder(image), encoder.state_dict().keys()
        SVDAffine().attach(encoder)
        torch.testing.assert_close(encoder(image), before, atol=close, rtol=1e-5)
        for name, parameter in encoder.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
                assert not name.endswith("bias") or "norm" in name
        trained = encoder(image)
        SVDAffine().merge(encoder)
    assert (trained - before).abs().max() > 0.01
    assert encoder.state_dict().keys() == keys
    torch.testing.assert_close(encoder(image), trained, atol=close, rtol=1e-5)


@pytest.mark.slow
def test_whole_encoder_equals_the_reference():
    """Built as the reference builds it: no windows, no relative positions, LayerNorm eps 1e-5."""
    from segment_anything.modeling import ImageEncoderViT

    stored = read("ssam_encoder_256")
    encoder = ImageEncoderViT(
        img_size=256,
        embed_dim=768,
        depth=12,
        num_heads=12,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
    ).eval()
    theirs = {"neck.conv1.": "neck.0.", "neck.ln1.": "neck.1."}
    theirs |= {"neck.conv2.": "neck.2.", "neck.ln2.": "neck.3."}
    ours = {name: name for name in stored["state_dict"]}
    for name in ours:
        for old, new in theirs.items():
            ours[name] = ours[name].replace(old, new)
    values = {
        new: torch.from_numpy(fill.fill(old, stored["state_dict"][old]))
        for old, new in ours.items()
    }
    moved = {k: v for k, v in values.items() if "trainable" in k}
    encoder.load_state_dict({k: v for k, v in values.items() if k not in moved})
    SVDAffine().attach(encoder)
    image = tensor(stored["input"])
    with torch.no_grad():
        assert_close(stored["output_identity"], encoder(image), rtol=3e-4)
        for name, value in moved.items():
            layer = encoder.get_submodule(name.rsplit(".", 1)[0])
            if name.endswith("scale"):
                layer.scale.copy_(1 + 10 * value)
            else:
                layer.shift.copy_(value)
        assert_close(stored["output_adapted"], encoder(image), rtol=1e-2)


def test_svf_has_scales_alone():
    encoder = build_sam("pocket", 64).image_encoder
    SVDAffine(shift=False, norms=False, positions=False).attach(encoder)
    trained = {n for n, p in encoder.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.endswith(".scale") for name in trained)
