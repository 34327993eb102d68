"""Image encoders on ONNX Runtime or OpenVINO instead of eager torch, in float32.

The image encoder does most of the work of a prediction; the mask decoder stays in torch. An encoder
is exported once, after its adapters were merged into its weights. The file stays in the cache under
the hash of the weights and of the versions that wrote it. Both runtimes compute on the CPU.
"""

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import ImageEncoderViT
from torch import Tensor, nn

from medsaga_lib import models
from medsaga_lib.adapt.adaptation import Adaptation
from medsaga_lib.errors import UserError
from medsaga_lib.files import cache_folder, replacing
from medsaga_lib.models.attention import split_attention

Runtime = Literal["torch", "onnx", "openvino", "auto"]
Encode = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # (1, 3, S, S) to (1, C, h, w)

# The packages of a runtime; the extra of medsaga-lib has the name of the runtime
PACKAGES = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}
OPSET = 17
TRIALS = 3  # timed images of each runtime for "auto"; our choice


class Exported(nn.Module):
    """An image encoder that runs outside torch, one image at a time."""

    def __init__(self, encode: Encode, img_size: int):
        super().__init__()
        self.encode, self.img_size = encode, img_size

    def forward(self, images: Tensor) -> Tensor:
        """Return the image embeddings (B, C, h, w) of images (B, 3, S, S)."""
        given = images.float().contiguous().numpy()
        parts = [self.encode(given[number : number + 1]) for number in range(len(given))]
        return torch.from_numpy(np.concatenate(parts))


def use_runtime(sam: Sam, runtime: Runtime, adaptation: Adaptation | None = None) -> str:
    """Replace the image encoder of a SAM in place; return the name of the runtime that it uses.

    Args:
        sam: in evaluation mode. It moves to the CPU unless the runtime is torch.
        runtime: "auto" tries torch and every installed runtime and takes the fastest; on a GPU it
            is torch.
        adaptation: the one that is attached to the encoder.

    Raises:
        UserError: a package of the runtime is not installed, or the cache cannot be written.
    """
    if runtime == "torch" or (runtime == "auto" and sam.device.type != "cpu"):
        return "torch"
    names = [name for name in PACKAGES if not missing(name)] if runtime == "auto" else [runtime]
    for name in names:
        require(name)
    if not names:
        return "torch"
    sam.cpu()
    path = exported(plain_copy(sam.image_encoder, adaptation))
    side = sam.image_encoder.img_size
    found: dict[str, nn.Module] = {name: Exported(LOADERS[name](path), side) for name in names}
    if runtime == "auto":
        found["torch"] = sam.image_encoder
    chosen = (
        min(found, key=lambda name: _seconds(found[name], side)) if len(found) > 1 else names[0]
    )
    sam.image_encoder = found[chosen]  # type: ignore[assignment]
    return chosen


def missing(runtime: str) -> list[str]:
    """Return the packages of a runtime that are not installed."""
    return [name for name in PACKAGES[runtime] if find_spec(name) is None]


def require(runtime: str) -> None:
    """Raise UserError if a package of the runtime is not installed."""
    if absent := missing(runtime):
        raise UserError(
            f"The runtime {runtime} needs {' and '.join(absent)}; run: "
            f'pip install "medsaga-lib[{runtime}]".'
        )


def plain_copy(image_encoder: nn.Module, adaptation: Adaptation | None = None) -> nn.Module:
    """Return a copy of an image encoder for export, with its adapters merged where possible.

    All parameters of the copy have `requires_grad`: TinyViT then computes images whole, because
    pieces make a larger file.
    """
    copy = deepcopy(image_encoder).eval()
    if adaptation is not None:
        with suppress(UserError):  # the exported encoder then contains the adapters as layers
            adaptation.merge(copy)  # type: ignore[arg-type]
    if isinstance(copy, ImageEncoderViT):
        split_attention(copy)
    return copy.requires_grad_(True)


def exported(encoder: nn.Module) -> Path:
    """Return the ONNX file of an encoder from `plain_copy`; it is written if the cache has none."""
    path = cache_folder() / "runtimes" / f"{_fingerprint(encoder)}.onnx"
    if path.is_file():
        return path
    side: Any = encoder.img_size
    with replacing(path) as temporary, warnings.catch_warnings(), torch.enable_grad():
        # The shapes are fixed, so traced values may become constants
        warnings.simplefilter("ignore")
        torch.onnx.export(
            encoder,
            (torch.zeros(1, 3, side, side),),
            str(temporary),
            opset_version=OPSET,
            dynamo=False,  # the newer exporter needs one more package and makes larger files
            input_names=["images"],
            output_names=["embeddings"],
        )
    return path


def _fingerprint(encoder: nn.Module) -> str:
    """Return a hash of the layers, their code, settings and weights, and of what exports them."""
    settings = [
        (name, {k: v for k, v in vars(module).items() if isinstance(v, int | float)})
        for name, module in encoder.named_modules()
    ]
    written = {"layers": str(encoder), "settings": settings, "opset": OPSET}
    versions = {name: _version(name) for name in ("torch", "onnx", "medsaga-lib")}
    digest = hashlib.sha256(json.dumps([written, versions]).encode())
    for file in sorted(Path(models.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    for name, tensor in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that is not installed
        return ""


def _on_onnx(path: Path) -> Encode:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def _on_openvino(path: Path) -> Encode:
    import openvino

    how = {
        "INFERENCE_PRECISION_HINT": "f32",  # its default is bfloat16 where the processor has it
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "CACHE_DIR": str(path.parent / "openvino"),  # of compiled models
    }
    model = openvino.Core().compile_model(str(path), "CPU", how)
    return lambda images: model(images)[0]


LOADERS: dict[str, Callable[[Path], Encode]] = {"onnx": _on_onnx, "openvino": _on_openvino}


@torch.inference_mode()
def _seconds(encoder: nn.Module, side: int) -> float:
    """Return the seconds of the fastest of some images, after a first one."""
    image, spent = torch.zeros(1, 3, side, side), []
    for _ in range(1 + TRIALS):
        began = time.perf_counter()
        encoder(image)
        spent.append(time.perf_counter() - began)
    return min(spent[1:])
