"""Linear layers: both kernels give the same values and gradients; other cases are torch's."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from medsaga_lib.memory.ledger import fake
from medsaga_lib.models import linear as module
from medsaga_lib.models.linear import Linear, linear, with_fast_layers
from medsaga_lib.models.sam import build_sam

onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN"
)


@pytest.fixture
def fast(monkeypatch):
    """Take oneDNN's kernel on every processor, and count its calls."""
    calls = []

    def operator(x, weight, bias):
        calls.append(x.shape)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    monkeypatch.setattr(module, "_operator", lambda: operator)
    return calls


def tensors(shape, out=5, dtype=torch.float32):
    """Return x, weight and bias that require gradients."""
    torch.manual_seed(0)
    shapes = shape, (out, shape[-1]), (out,)
    return [torch.randn(one, dtype=dtype, requires_grad=True) for one in shapes]


@onednn
@pytest.mark.parametrize("trained", range(8))
@pytest.mark.parametrize("shape", [(7, 3), (2, 4, 3), (3,), (2, 3, 4, 6)])
def test_values_and_gradients_are_those_of_torch_in_double_precision(fast, shape, trained):
    ours = tensors(shape)
    for number, tensor in enumerate(ours):
        tensor.requires_grad_(bool(trained >> number & 1))
    exact = [t.detach().double().requires_grad_(t.requires_grad) for t in ours]
    out, expected = linear(*ours), functional.linear(*exact)
    assert torch.allclose(out.double(), expected, atol=1e-5)
    assert out.requires_grad == bool(trained)
    assert len(fast) == 1
    if trained:
        weights = torch.randn_like(expected)
        out.backward(weights.float())
        expected.backward(weights)
    for one, other in zip(ours, exact, strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.allclose(one.grad.double(), other.grad, atol=1e-5)


@onednn
def test_views_with_any_strides_are_taken(fast):
    _, weight, bias = tensors((4, 6))
    across = torch.randn(6, 4, requires_grad=True)
    out = linear(across.t(), weight, bias)
    assert torch.allclose(out, functional.linear(across.t(), weight, bias), atol=1e-5)
    out.sum().backward()  # its gradient is an expanded number
    assert torch.allclose(across.grad, weight.sum(0)[:, None].expand(6, 4), atol=1e-5)


@onednn
def test_only_what_the_backward_pass_needs_is_stored(fast):
    x, weight, bias = tensors((7, 3))
    kept = []
    for trained, stored in ((x, weight), (weight, x)):
        for tensor in (x, weight, bias):
            tensor.requires_grad_(tensor is trained)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            linear(x, weight, bias)
        assert kept.pop().data_ptr() == stored.data_ptr()
        assert not kept


@onednn
def test_other_dtypes_devices_autocast_empty_tensors_and_exports_are_left_to_torch(fast):
    double = tensors((7, 3), dtype=torch.float64)
    assert torch.equal(linear(*double), functional.linear(*double))
    with fake():
        assert linear(*tensors((7, 3))).shape == (7, 5)
    meta = [t.to("meta") for t in double]
    assert linear(*meta).shape == (7, 5)
    single = tensors((7, 3))
    assert linear(single[0][:0], *single[1:]).shape == (0, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(*single).dtype == torch.bfloat16
    layer = nn.Linear(3, 5)
    with_fast_layers(layer)
    traced = torch.jit.trace(layer.requires_grad_(False), single[0].detach(), check_trace=False)
    assert "aten::linear" in str(traced.inlined_graph)
    assert not fast


def test_layers_keep_their_parameters_and_subclasses_are_left_alone():
    other = nn.modules.linear.NonDynamicallyQuantizableLinear
    network = nn.Sequential(nn.Linear(3, 4), other(4, 2))
    before = dict(network.named_parameters())
    with_fast_layers(network)
    assert [type(layer) for layer in network] == [Linear, other]
    after = dict(network.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_every_linear_layer_of_a_sam_is_fast():
    layers = [m for m in build_sam("pocket", 64).modules() if isinstance(m, nn.Linear)]
    assert len(layers) > 40
    assert {type(layer) for layer in layers} == {Linear}


@pytest.mark.parametrize(
    ("capability", "processor", "taken"),
    [
        ("AVX512", "vendor_id : AuthenticAMD", True),
        ("AVX512", "vendor_id : GenuineIntel", False),
        ("AVX2", "vendor_id : AuthenticAMD", False),
    ],
)
@onednn
def test_onednn_is_taken_where_mkl_is_slow(monkeypatch, capability, processor, taken):
    if not torch.backends.mkl.is_available():
        pytest.skip("this torch has no MKL")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(module, "_processor", lambda: processor)
    assert (module._operator.__wrapped__() is not None) == taken
