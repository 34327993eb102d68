"""Checkpoints: where they come from, how they are fetched, checked and loaded."""

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch

from medsaga_lib.backbones.sam import build_sam, input_size, resize_positions, shape_of
from medsaga_lib.errors import UserError
from medsaga_lib.files import CACHE_VARIABLE, cache_folder

_CHUNK = 1 << 16  # bytes written at a time: what is lost at most when a download breaks off


@dataclass(frozen=True)
class Checkpoint:
    """A file with the weights of one backbone: shipped, to be downloaded, or to be put there."""

    name: str
    file: str
    licence: str
    source: str
    url: str | None = None  # None: shipped with the library, or behind a `page`
    known_hash: str | None = None  # "sha256:..." or, where only that is published, "md5:..."
    size: int | None = None  # bytes
    page: str | None = None  # where a person gets a file that no program may
    unused: tuple[str, ...] = ()  # beginnings of keys that no SAM needs: dropped before the rest


# Addresses, sizes and hashes as published by their authors and checked by others.
CHECKPOINTS = {
    "pocket": Checkpoint(
        "pocket",
        "pocket.safetensors",
        "Apache-2.0",
        "pretrained by this project on procedural pictures; it is not SAM",
    ),
    "vit_b": Checkpoint(
        "vit_b",
        "sam_vit_b_01ec64.pth",
        "Apache-2.0",
        "Kirillov et al. 2023, facebookresearch/segment-anything",
        "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",
        "sha256:ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375_042_383,
    ),
    "medsam": Checkpoint(
        "medsam",
        "medsam_vit_b.pth",
        "Apache-2.0",
        "Ma et al. 2024, bowang-lab/MedSAM",
        "https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        "md5:3bb6db55bd0c9ca30b61248bca72f8d6",  # Zenodo publishes no sha256
    ),
    "mobile_sam": Checkpoint(
        "mobile_sam",
        "mobile_sam.pt",
        "Apache-2.0",
        "Zhang et al. 2023, ChaoningZhang/MobileSAM",
        "https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/"
        "b01a9ccef3b9e10b099b544efe004d0871802c3b/weights/mobile_sam.pt",
        "sha256:6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        40_728_226,
        # TinyViT's classifier of ImageNet, which MobileSAM's forward pass never reaches
        unused=("image_encoder.norm_head.", "image_encoder.head."),
    ),
    # About 38 MB; its authors publish no hash, so that keys and shapes are all there is to check
    "lite_medsam": Checkpoint(
        "lite_medsam",
        "lite_medsam.pth",
        "Apache-2.0",
        "Ma et al. 2024, bowang-lab/MedSAM, branch LiteMedSAM",
        page="https://drive.google.com/file/d/18Zed-TUTsmr2zc5CHUWd5Tu13nb6vq6z/view",
    ),
}


def checkpoint(name: str) -> Checkpoint:
    """The checkpoint of a backbone; UserError for a name that has none."""
    if name not in CHECKPOINTS:
        raise UserError(f"There are no weights {name!r}; choose one of {', '.join(CHECKPOINTS)}.")
    return CHECKPOINTS[name]


def path_of(item: Checkpoint) -> Path:
    """Where the file is, or will be once fetched."""
    if item.url is None and item.page is None:
        return Path(__file__).with_name(item.file)
    return cache_folder() / "weights" / item.file


def fetch(name: str, progress: bool = True) -> Path:
    """The path of a checkpoint, downloaded first if need be.

    A download that broke off goes on where it stopped; the file appears only once its hash is
    right.

    Raises:
        UserError: unknown name, no connection, wrong hash, a folder that cannot be written, or a
            file that has to be fetched by hand.
    """
    import pooch
    import requests

    item = checkpoint(name)
    path = path_of(item)
    if item.page is not None and not path.is_file():
        raise UserError(
            f"The weights {name} cannot be downloaded from here; open {item.page} in a browser "
            f"and put the file at {path}."
        )
    if item.url is None:
        return path
    try:
        pooch.retrieve(
            item.url,
            item.known_hash,
            fname=item.file,
            path=path.parent,
            downloader=_resuming_download(path.with_name(item.file + ".part"), progress),
        )
    except requests.RequestException as error:
        raise UserError(
            f"Cannot download {item.url} ({type(error).__name__}); run the command again to go on "
            f"where it stopped, put the file at {path} by hand, or use the pocket backbone, which "
            "needs no download."
        ) from error
    except ValueError as error:
        raise UserError(
            f"The file at {item.url} does not have the hash {item.known_hash} pinned for {name}; "
            "nothing was kept: try again, and if it happens again do not use that file."
        ) from error
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}; free some space or set "
            f"{CACHE_VARIABLE} to a folder that can be written."
        ) from error
    return path


def _resuming_download(part: Path, progress: bool) -> Callable:
    """A pooch downloader that keeps what it has in `part` and asks only for the rest."""

    def download(url: str, output_file: str, _) -> None:
        import requests
        from tqdm import tqdm

        have = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                part.unlink()  # it was complete and wrong, or the file on the server has changed
                return download(url, output_file, _)
            answer.raise_for_status()
            resumes = answer.status_code == requests.codes.partial_content
            total = int(answer.headers.get("Content-Length", 0)) + (have if resumes else 0)
            with (
                part.open("ab" if resumes else "wb") as file,
                tqdm(
                    total=total or None,
                    initial=have if resumes else 0,
                    unit="B",
                    unit_scale=True,
                    desc=part.stem,
                    disable=not progress,
                ) as bar,
            ):
                for chunk in answer.iter_content(_CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
        if total and part.stat().st_size != total:
            raise requests.ConnectionError(f"{part.stat().st_size} of {total} bytes arrived")
        os.replace(part, output_file)

    return download


def file_of(name: str, weights: str = "pretrained", progress: bool = True) -> Path | None:
    """The file that a backbone starts from: its checkpoint, or another that `weights` names.

    None for weights that are "random", or where there is no backbone ("none").
    """
    if weights == "random" or name == "none":
        return None
    return fetch(name, progress) if weights == "pretrained" else Path(weights).absolute()


def load_state(
    name: str, size: int | None = None, progress: bool = True, file: Path | None = None
) -> dict:
    """The pretrained weights of a backbone, made to fit an input size.

    Args:
        name: pocket, vit_b, medsam, mobile_sam or lite_medsam.
        size: pixels along one side; default: the checkpoint's own.
        file: a checkpoint of the same network in place of the published one.

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
        if not key.startswith(checkpoint(name).unused)
    }
    _require_keys(path, name, state)
    return resize_positions(state, shape, input_size(name, size))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors or .pth file, on the CPU; no code in it is run.

    Raises:
        UserError: the file is missing, truncated, not a checkpoint, or holds more than tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}; check the path.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        RuntimeError,
        EOFError,
        UnpicklingError,
        LookupError,
        ValueError,
        AttributeError,
        TypeError,
        struct.error,
        json.JSONDecodeError,
    ) as error:
        raise UserError(
            f"{path} cannot be read as a checkpoint ({path.stat().st_size:,} bytes; truncated, or "
            "not a tensors-only file); give another, or delete it and fetch it again."
        ) from error
    pairs = state.items() if isinstance(state, dict) else [(None, None)]
    if not all(isinstance(key, str) and torch.is_tensor(tensor) for key, tensor in pairs):
        raise UserError(f"{path} is no state dict of tensors; it cannot be used as weights.")
    return state


def _require_keys(path: Path, name: str, state: dict) -> None:
    """Strict: the same keys and shapes as the network, not one more or less."""
    with torch.device("meta"):
        wanted = {k: v.shape for k, v in build_sam(name).state_dict().items()}
    problems = (
        [f"{key} is missing" for key in wanted if key not in state]
        + [f"{key} does not belong" for key in state if key not in wanted]
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
            + "; use the file that belongs to this backbone."
        )
