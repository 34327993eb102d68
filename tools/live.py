"""Make what the page "Try it" needs: LiteMedSAM as ONNX, onnxruntime-web, images, reference masks.

    python -m tools.live            # fills _build/live, as make book does
    python -m tools.live --check    # masks of rounded weights against those of float32

The weights are stored in int16 with scales; the browser turns them into float32 and computes so.
npm fetches onnxruntime-web once, into the cache. Without npm or without a network, the page shows
the reference masks only, and says why.
"""

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from medsaga_lib.bench.boxes import iou, load_backbone
from medsaga_lib.data.catalog import open_or_phantoms
from medsaga_lib.data.examples import Example, examples_of
from medsaga_lib.data.phantoms import PHANTOMS
from medsaga_lib.data.prompts import box_of
from medsaga_lib.data.seen import seen
from medsaga_lib.errors import UserError
from medsaga_lib.files import cache_folder, file_hash, replacing, write_bytes, write_json
from medsaga_lib.inference.box_decoder import Shared, segment_boxes, share
from medsaga_lib.inference.box_predictor import BoxPredictor
from medsaga_lib.inference.exported import Parts, parts_of, rounded, to_16_bits
from medsaga_lib.models.weights import weight_file
from tools.book import BUILD
from tools.provenance import RECORDED, ROOT, machine

PAGE = "book/live"  # as in _toc.yml
FOLDER = BUILD / "live"
NETWORK = "lite_medsam"
PACKAGE = "onnxruntime-web-1.30.0.tgz"  # its name at npm, with a hyphen instead of an @
PACKAGE_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
# The library without WebGPU, and the WebAssembly that it loads
MEMBERS = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
NPM_SECONDS = 180  # our choice; the package has 33 MB
OPSET = 17
IMAGE_FILE, BOX_FILE, EXAMPLES_FILE = "image.onnx", "box.onnx", "examples.js"
RECORD = RECORDED / "live.json"

# The images of the page, with the words for them
DATA = {
    "polyp_kvasir": "polyp",
    "ct_spleen_msd_crop": "CT of a spleen",
    "nuclei_dsb2018": "nuclei",
    "cxr_hannover_lungs": "chest X-ray",
}
PROMPTS = 5  # boxes of each image with a reference mask
WIDER = 0.1  # each further box of an object is wider by this share of its sides
CHECKED_IMAGES = 5  # of each data set, for the table of rounded weights; our choice
CHECKED_DATA = (
    *DATA,
    "hippocampus_msd",
    "mr_dwi_stroke_isles22",
    "ct_mr_slices_sammed2d_demo",
    "ct_mr_multiorgan_totalseg_example",
)

# A change of one of these makes the files anew
SOURCES = (
    "tools/live.py",
    "medsaga_lib/inference/box_decoder.py",
    "medsaga_lib/inference/exported.py",
    "medsaga_lib/models/evaluated.py",
    "medsaga_lib/models/feeding.py",
    "medsaga_lib/models/frame.py",
    "medsaga_lib/models/tinyvit.py",
)


def bring(root: Path, target: Path) -> str:
    """Fill the folder `target` of the site; return why the network is missing, or "".

    What was made before from the same sources is only copied.
    """
    made, stamp = root / FOLDER, root / FOLDER / "stamp.json"
    wanted = _inputs()
    try:
        kept = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    if kept.get("inputs") != wanted or kept.get("why"):
        shutil.rmtree(made, ignore_errors=True)
        kept = {"inputs": wanted, "why": make(made)}
        write_json(stamp, kept)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(made, target, ignore=shutil.ignore_patterns(stamp.name))
    return kept["why"]


def _inputs() -> dict[str, str]:
    """Return what the files are made from: sources, weights, versions and images."""
    sources = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in SOURCES))
    return {
        "sources": sources.hexdigest(),
        "weights": str(weight_file(NETWORK).known_hash),
        "torch": torch.__version__,
        "images": ", ".join(str(open_or_phantoms(name).root) for name in DATA),
    }


def make(folder: Path) -> str:
    """Make the files of the page; return why the network is missing, or ""."""
    predictor = load_backbone(NETWORK)
    why = ""
    try:
        unpack_runtime(folder)
        export(rounded(parts_of(predictor.sam)), predictor.sam.image_encoder.img_size, folder)
    except UserError as error:
        why = str(error)
    shown = [_describe(predictor, *one, folder) for one in enumerate(pictures())]
    content = {"side": predictor.sam.image_encoder.img_size, "why": why, "examples": shown}
    write_bytes(folder / EXAMPLES_FILE, f"const LIVE = {json.dumps(content)};\n".encode())
    return why


def unpack_runtime(folder: Path) -> None:
    """Put the files of onnxruntime-web into a folder, from the cache or from npm.

    Raises:
        UserError: npm is missing, it cannot fetch the package, or the package is another one.
    """
    package = cache_folder() / "npm" / PACKAGE
    if not package.exists():
        _fetch(package)
    if file_hash(package) != PACKAGE_SHA256:
        package.unlink()
        raise UserError(f"{PACKAGE} from npm does not have the pinned sha256 {PACKAGE_SHA256}.")
    with tarfile.open(package) as archive:
        for name in MEMBERS:
            content = archive.extractfile(f"package/dist/{name}")
            assert content is not None  # the package has the pinned hash
            write_bytes(folder / name, content.read())


def _fetch(package: Path) -> None:
    """Let npm fetch the package into the cache."""
    name = PACKAGE.removesuffix(".tgz")
    wanted = "@".join(name.rsplit("-", 1))
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"npm, which fetches {wanted}, is not installed.")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", wanted, "--silent", "--fetch-retries=1", "--ignore-scripts"]
        try:
            subprocess.run(
                command, cwd=folder, check=True, capture_output=True, timeout=NPM_SECONDS
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise UserError(f"npm cannot fetch {wanted}; check the network.") from error
        with replacing(package) as temporary:
            shutil.copyfile(Path(folder) / PACKAGE, temporary)


@torch.enable_grad()  # without gradients, TinyViT computes in pieces, which make a larger file
def export(parts: Parts, side: int, folder: Path) -> None:
    """Write both modules as ONNX files with weights in int16.

    Raises:
        UserError: the package onnx is missing.
    """
    image, box = torch.zeros(1, 3, side, side), torch.tensor([[0.0, 0.0, side / 2, side / 2]])
    shared = Shared(*(tensor.detach() for tensor in parts.image(image)))
    names = list(shared._fields)
    _export(parts.image, (image,), folder / IMAGE_FILE, ["picture"], names)
    _export(parts.box, (box, *shared), folder / BOX_FILE, ["box", *names], ["logits", "score"])


def _export(
    module: torch.nn.Module, given: tuple, path: Path, inputs: list[str], outputs: list[str]
) -> None:
    names: dict[str, Any] = {"input_names": inputs, "output_names": outputs}
    with tempfile.TemporaryDirectory() as drafts, warnings.catch_warnings():
        # Shapes are fixed here, so traced values may become constants. The newer exporter makes
        # files that are larger and slower in the browser.
        warnings.simplefilter("ignore")
        draft = Path(drafts) / path.name
        torch.onnx.export(module, given, str(draft), opset_version=OPSET, dynamo=False, **names)
        write_bytes(path, in_16_bits(draft.read_bytes()))


def in_16_bits(model: bytes) -> bytes:
    """Return an ONNX file whose large float32 tensors are int16, followed by a cast and a product.

    Equal tensors are stored once, and inner names are short: this saves 5 % of the file.

    Raises:
        UserError: the package onnx is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError("the package onnx is missing; run: pip install onnx.") from error
    from onnx import TensorProto, helper, numpy_helper

    graph = (loaded := onnx.load_from_string(model)).graph
    decoding = []
    for tensor in [*graph.initializer]:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            name = tensor.name
            whole, scales = to_16_bits(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(whole, f"{name}_whole"))
            graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
            cast = helper.make_node("Cast", [tensor.name], [f"{name}_cast"], to=TensorProto.FLOAT)
            product = helper.make_node("Mul", [f"{name}_cast", f"{name}_scales"], [name])
            decoding += [cast, product]
    nodes = [*decoding, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    _shorten(graph, _merge(graph))
    return loaded.SerializeToString()


def _merge(graph: Any) -> dict[str, str]:
    """Remove the tensors of an ONNX graph that equal another one; return the name of that one.

    A matrix and a multiple of it are equal in int16, and have different scales.
    """
    from onnx import numpy_helper

    first: dict[tuple, str] = {}
    merged = {}
    for tensor in [*graph.initializer]:
        content = numpy_helper.to_array(tensor)
        key = tensor.data_type, content.shape, content.tobytes()
        if (kept := first.setdefault(key, tensor.name)) != tensor.name:
            merged[tensor.name] = kept
            graph.initializer.remove(tensor)
    return merged


def _shorten(graph: Any, merged: dict[str, str]) -> None:
    """Number the inner names of an ONNX graph; inputs and outputs keep theirs."""
    numbered = {value.name: value.name for value in (*graph.input, *graph.output)}

    def short(name: str) -> str:
        name = merged.get(name, name)
        return numbered.setdefault(name, f".{len(numbered):x}") if name else ""

    del graph.value_info[:]
    for node in graph.node:
        node.name = node.doc_string = ""
        node.input[:] = [*map(short, node.input)]
        node.output[:] = [*map(short, node.output)]
    for tensor in graph.initializer:
        tensor.name = short(tensor.name)


def pictures() -> list[Example]:
    """Return the images of the page: one of each data set, or phantoms of different patients."""
    datasets = [open_or_phantoms(name) for name in DATA]
    if datasets[0].name == PHANTOMS:
        return examples_of(datasets[0], len(DATA))
    return [examples_of(dataset, 1)[0] for dataset in datasets]


def _describe(
    predictor: BoxPredictor, number: int, example: Example, folder: Path
) -> dict[str, Any]:
    """Write an image as PNG and return what the page shows of it."""
    stored = (255 * example.pixels).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(stored).save(file, format="png", optimize=True)
    write_bytes(folder / f"{number}.png", file.getvalue())
    objects = [example.truth == value for value in example.values]
    boxes = boxes_of(objects)
    masks, scores = predict(predictor, stored, boxes)
    dataset = open_or_phantoms(example.data)
    return {
        "file": f"{number}.png",
        "name": DATA.get(example.data, f"drawn chest X-ray {number + 1}"),
        "credit": f"{dataset.citation}. {dataset.licence}.",
        "seen": seen(NETWORK, example.data).exposure if example.data in DATA else "no",
        "width": stored.shape[1],
        "height": stored.shape[0],
        "objects": [runs_of(one) for one in objects],
        "prompts": [
            {"box": box.tolist(), "mask": runs_of(mask), "score": round(score, 4)}
            for box, mask, score in zip(boxes, masks, scores, strict=True)
        ],
    }


def boxes_of(objects: list[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """Return `PROMPTS` boxes (N, 4): those of the objects, then wider ones of the first object."""
    boxes = [box_of(one) for one in objects][:PROMPTS]
    first, (height, width) = boxes[0], objects[0].shape
    wide = np.tile(first[2:] - first[:2], 2) * (-1, -1, 1, 1)
    for step in range(1, 1 + PROMPTS - len(boxes)):
        wider = np.round(first + step * WIDER * wide / 2)
        boxes.append(np.clip(wider, 0, [width - 1, height - 1] * 2))
    return np.array(boxes).astype(np.int64)


@torch.inference_mode()
def predict(
    predictor: BoxPredictor, stored: NDArray[np.uint8], boxes: NDArray, parts: Parts | None = None
) -> tuple[list[NDArray[np.bool_]], list[float]]:
    """Return the masks (H, W) of boxes on an 8-bit image, and the network's scores of them.

    parts: modules whose weights replace those of the predictor.
    """
    box_side = (parts or parts_of(predictor.sam)).box
    predictor = BoxPredictor(box_side.sam, feed=predictor.feed)
    size = stored.shape[:2]
    asked, frame = torch.from_numpy(boxes), predictor.frame(size)
    embedding = predictor.embed(stored / 255)
    shared = share(predictor.sam, embedding)
    scores = [box_side(box[None], *shared)[1].item() for box in frame.boxes(asked)]
    found = segment_boxes(predictor.sam, embedding, asked, size, frame=frame)
    return [mask.whole(size) for mask in found.masks], scores


def runs_of(mask: NDArray[np.bool_]) -> list[int]:
    """Return the lengths of runs of equal pixels, row by row; the first run is background."""
    flat = np.concatenate([[False], mask.ravel()])
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], starts, [mask.size]])).tolist()


def check(record: Callable[[dict[str, Any]], None]) -> None:
    """Compare masks of rounded weights with those of float32 on every data set.

    record: receives the result after each data set.
    """
    predictor = load_backbone(NETWORK)
    near = rounded(parts_of(predictor.sam))
    rows = []
    for name in CHECKED_DATA:
        found = [*_compare(predictor, near, name)]
        values = np.array(found)
        rows.append(
            {
                "data": name,
                "boxes": len(values),
                "mean": round(float(values.mean()), 4),
                "lowest": round(float(values.min()), 4),
            }
        )
        print(rows[-1], flush=True)
        record({**machine(), "command": "python -m tools.live --check", "rows": rows})


def _compare(predictor: BoxPredictor, near: Parts, name: str) -> Iterator[float]:
    """Yield the IoU of both masks for the exact box of each object of some images."""
    for example in examples_of(open_or_phantoms(name), CHECKED_IMAGES):
        stored = (255 * example.pixels).round().astype(np.uint8)
        boxes = np.array([box_of(example.truth == value) for value in example.values])
        full, _ = predict(predictor, stored, boxes)
        other, _ = predict(predictor, stored, boxes, near)
        yield from (iou(one, two) for one, two in zip(full, other, strict=True))


def main() -> None:
    """Make the files, or check the rounded weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="Write the table of rounded weights.")
    if parser.parse_args().check:
        check(lambda content: write_json(RECORD, content))
        return
    target = ROOT / BUILD / "html" / "_static" / "live"
    print(bring(ROOT, target) or f"the network is in {target}")


if __name__ == "__main__":
    main()
