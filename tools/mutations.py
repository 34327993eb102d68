"""Small valid files of each format that the library reads, and random damage to them.

A file is damaged as a whole, or in a part that a reader reaches only if the rest is right: the
content of a gzip stream, a member of a zip archive, a header of a tar archive or a chunk of a PNG
with its checksum, the JSON of a safetensors file. The same seed gives the same file, with the same
versions of the libraries.
"""

import gzip
import io
import json
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

Files = dict[str, bytes]  # the content of each file, by its name in the folder of a sample
Parts = list[bytes]
Place = tuple[int, int]  # offset and length in bytes of a field of a header

INTEGERS = (0, 1, 2, -1, 127, 128, 255, 2**15 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1,
            2**63 - 1, 2**63)  # fmt: skip
FLOATS = (float("nan"), float("inf"), float("-inf"), 0.0, -1.0, 1e38, 1e308, 1e-45, 1e-320)
NUMBERS = (b"0", b"-1", b"1", b"2", b"0.5", b"65536", b"2147483648", b"18446744073709551616",
           b"1e308", b"-1e308", b"1e-320", b"1e999", b"nan", b"inf", b"-inf", b"")  # fmt: skip
TOKENS = (b"9" * 400, b"9" * 5000, b"\0", b"\xff", "é".encode(), "\u202e".encode(),
          b"\xef\xbb\xbf", b'"', b"'''", b",",
          b"\n", b"\r", b"=", b"[", b"]", b"[" * 3000, b"{a=" * 3000, b"a." * 3000, b"../", b"\\",
          b"x" * 300, b"x" * 200_000, b"true", b"1979-05-27", b"{}", b"[]")  # fmt: skip
LARGEST_BLOCK = 64  # bytes inserted, removed or repeated at a time
HEADER = 512  # bytes; half of the damage by position is in the first ones
RUNS_OF_DIGITS = re.compile(rb"[-+]?\d[\d.]*")


@dataclass(frozen=True)
class View:
    """Parts of a file that can be damaged one by one.

    split: takes a file apart; returns the parts and a function that puts them together again.
    fields: the places of the header's fields in a part.
    """

    split: Callable[[bytes], tuple[Parts, Callable[[Parts], bytes]]]
    fields: Callable[[bytes], Sequence[Place]] = lambda part: ()


@dataclass(frozen=True)
class Format:
    """A format: its samples, what a reader is given, and how its files are taken apart.

    samples: writes valid files and returns them.
    target: the name that a reader is given; "" for the folder.
    """

    samples: Callable[[], list[Files]]
    target: str
    views: tuple[View, ...] = field(default=())
    text: bool = False


def mutated(name: str, seed: int) -> Files:
    """Return a damaged sample of a format."""
    random = Random(f"{name}:{seed}")
    kind = FORMATS[name]
    files = dict(random.choice(_samples(name)))
    chosen = random.choice([kind.target or next(iter(files)), random.choice(list(files))])
    view = random.choice(kind.views)
    parts, join = view.split(files[chosen])
    number = random.randrange(len(parts))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        changes = [*BINARY, *TEXT * (2 if kind.text else 0), _number, _number]
        places = view.fields(parts[number])
        if places and random.random() < 0.5:
            parts[number] = _field(parts[number], random, places)
        else:
            parts[number] = random.choice(changes)(parts[number], random)
    files[chosen] = join(parts)
    return files


@cache
def _samples(name: str) -> list[Files]:
    return FORMATS[name].samples()


# Damage


def _place(content: bytes, random: Random) -> int:
    end = len(content) if random.random() < 0.5 else min(len(content), HEADER)
    return random.randrange(end + 1)


def _block(content: bytes, random: Random) -> tuple[int, int]:
    start = _place(content, random)
    return start, start + random.randint(1, LARGEST_BLOCK)


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 8) if content else 0):
        changed[min(_place(content, random), len(content) - 1)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _truncate(content: bytes, random: Random) -> bytes:
    return content[: _place(content, random)]


def _insert(content: bytes, random: Random) -> bytes:
    start, end = _block(content, random)
    block = random.choice((bytes(end - start), random.randbytes(end - start)))
    return content[:start] + block + content[start:]


def _remove(content: bytes, random: Random) -> bytes:
    start, end = _block(content, random)
    return content[:start] + content[end:]


def _repeat(content: bytes, random: Random) -> bytes:
    start, end = _block(content, random)
    return content[:end] + content[start:end] + content[end:]


def _move(content: bytes, random: Random) -> bytes:
    start, end = _block(content, random)
    to = _place(content, random)
    return content[:to] + content[start:end] + content[to + end - start :]


def _extreme(content: bytes, random: Random) -> bytes:
    return _field(content, random, [(_place(content, random), random.choice((1, 2, 4, 8)))])


def _field(content: bytes, random: Random, places: Sequence[Place]) -> bytes:
    """Set a field to an extreme value, or exchange it with another one of the same length."""
    start, size = random.choice(places)
    same = [place for place in places if place[1] == size]
    if len(same) > 1 and random.random() < 0.2:
        other = random.choice(same)[0]
        changed = bytearray(content)
        changed[start : start + size] = content[other : other + size]
        changed[other : other + size] = content[start : start + size]
        return bytes(changed)
    order = random.choice(("<", ">"))
    if size in (4, 8) and random.random() < 0.3:
        with np.errstate(over="ignore"):
            value = np.array(random.choice(FLOATS)).astype(f"{order}f{size}").tobytes()
    else:
        number = random.choice(INTEGERS) % (1 << 8 * size)
        value = number.to_bytes(size, "little" if order == "<" else "big")
    return content[:start] + value + content[start + size :]


def _number(content: bytes, random: Random) -> bytes:
    """Replace a number that is written as text, or exchange two of them."""
    found = [match.span() for match in RUNS_OF_DIGITS.finditer(content[: 8 * HEADER])]
    if not found:
        return _extreme(content, random)
    start, end = random.choice(found)
    value = random.choice(NUMBERS)
    if random.random() < 0.3:
        value = content[slice(*random.choice(found))]
    return content[:start] + value + content[end:]


def _token(content: bytes, random: Random) -> bytes:
    start = _place(content, random)
    end = start + random.choice((0, 1, 5))
    return content[:start] + random.choice(TOKENS) + content[end:]


def _line(content: bytes, random: Random) -> bytes:
    """Remove, repeat or exchange lines."""
    lines = content.split(b"\n")
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    how = random.randrange(3)
    if how == 0:
        del lines[one]
    elif how == 1:
        lines.insert(other, lines[one])
    else:
        lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


Change = Callable[[bytes, Random], bytes]
BINARY: tuple[Change, ...] = (_flip, _truncate, _insert, _remove, _repeat, _move, _extreme)
TEXT: tuple[Change, ...] = (_token, _line, _token, _line)


# Parts of files


def _whole(content: bytes) -> tuple[Parts, Callable[[Parts], bytes]]:
    return [content], lambda parts: parts[0]


def _gzip(content: bytes) -> tuple[Parts, Callable[[Parts], bytes]]:
    return [gzip.decompress(content)], lambda parts: gzip.compress(parts[0], 1, mtime=0)


def _zip(content: bytes) -> tuple[Parts, Callable[[Parts], bytes]]:
    """The members; a checkpoint of an old version of PyTorch is not an archive."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return _whole(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        members = [archive.read(info) for info in infos]

    def join(parts: Parts) -> bytes:
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w") as archive:
            for info, part in zip(infos, parts, strict=True):
                fresh = zipfile.ZipInfo(info.filename)
                archive.writestr(fresh, part, info.compress_type)
        return written.getvalue()

    return members, join


TAR_BLOCK = 512  # bytes; the fields of a header, POSIX.1-2001, ustar
TAR_FIELDS = [(0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1), (157, 100),
              (257, 6), (345, 155)]  # fmt: skip


def _tar(content: bytes) -> tuple[Parts, Callable[[Parts], bytes]]:
    """The headers of the members; the checksums fit after the change."""
    headers, contents, start = [], [], 0
    while any(header := content[start : start + TAR_BLOCK]):
        blocks = -(-int(header[124:136].rstrip(b"\0 ") or b"0", 8) // TAR_BLOCK)
        end = start + TAR_BLOCK * (1 + blocks)
        headers.append(header)
        contents.append(content[start + TAR_BLOCK : end])
        start = end

    def join(parts: Parts) -> bytes:
        whole = b""
        for part, member in zip(parts, contents, strict=True):
            header = bytearray(part[:TAR_BLOCK].ljust(TAR_BLOCK, b"\0"))
            header[148:156] = b" " * 8  # as the checksum counts itself
            header[148:156] = b"%06o\0 " % sum(header)
            whole += bytes(header) + member
        return whole + content[start:]

    return headers, join


def _zip_fields(content: bytes) -> list[Place]:
    """The fields of the central directory: sizes, checksum, method, offsets, lengths."""
    lengths = (4, 2, 2, 2, 2, 2, 2, 4, 4, 4, 2, 2, 2, 2, 2, 4, 4)  # APPNOTE 4.3.12
    places = []
    for match in re.finditer(rb"PK\x01\x02", content):
        start = match.start()
        for length in lengths:
            places.append((start, length))
            start += length
    return places


def _png(content: bytes) -> tuple[Parts, Callable[[Parts], bytes]]:
    """The chunks, each with its name; the checksums fit after the change."""
    chunks, start = [], 8
    while start < len(content):
        length = int.from_bytes(content[start : start + 4], "big")
        chunks.append(content[start + 4 : start + 8 + length])
        start += 12 + length

    def join(parts: Parts) -> bytes:
        whole = b"".join(
            struct.pack(">I", max(len(part) - 4, 0)) + part + struct.pack(">I", zlib.crc32(part))
            for part in parts
        )
        return content[:8] + whole

    return chunks, join


def _png_fields(chunk: bytes) -> list[Place]:
    if chunk[:4] != b"IHDR":
        return []
    return [(4, 4), (8, 4), *((place, 1) for place in range(12, 17))]


def _safetensors(content: bytes) -> tuple[Parts, Callable[[Parts], bytes]]:
    """The JSON of the header; the length before it fits after the change."""
    length = int.from_bytes(content[:8], "little")

    def join(parts: Parts) -> bytes:
        return struct.pack("<Q", len(parts[0])) + parts[0] + content[8 + length :]

    return [content[8 : 8 + length]], join


def _nifti_fields(content: bytes) -> list[Place]:
    import nibabel

    fields: Any = nibabel.Nifti1Header.template_dtype.fields
    places = []
    for kind, offset in ((entry[0], entry[1]) for entry in fields.values()):
        size = kind.base.itemsize
        places += [(offset + i * size, size) for i in range(kind.itemsize // size) if size <= 8]
    return places


def _tiff_fields(content: bytes) -> list[Place]:
    """The four fields of each entry of the first directory, for little-endian files."""
    start = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[start : start + 2], "little")
    places: list[Place] = [(start, 2)]
    for entry in range(min(count, 64)):
        offset = start + 2 + 12 * entry
        places += [(offset, 2), (offset + 2, 2), (offset + 4, 4), (offset + 8, 4)]
    return places


def _dicom_fields(content: bytes) -> list[Place]:
    """The lengths and the short values of the elements with explicit representation."""
    places, start = [], 132
    while start + 8 <= len(content):
        long = content[start + 4 : start + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT")
        at, size = (start + 8, 4) if long else (start + 6, 2)
        length = int.from_bytes(content[at : at + size], "little")
        places.append((at, size))
        if length in (2, 4, 8):
            places.append((at + size, length))
        start = at + size + length
    return places


# Samples

PLANE, BLOCK = (20, 24), (4, 12, 10)  # pixels and voxels: small, so that a second reads hundreds


def _values(shape: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 200, shape)
    return (values // 67 if dtype == np.uint8 else values).astype(dtype)


def _written(names: Sequence[str], write: Callable[[Path], object]) -> Files:
    """Return the files that a function writes into a folder, those of `names` first."""
    with TemporaryDirectory() as folder:
        write(Path(folder))
        found = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    return {name: found[name] for name in names} | found


def _nifti_samples(name: str) -> list[Files]:
    import nibabel as nib

    def write(folder: Path, dtype: Any, kind: Any, slope: float) -> None:
        image = kind(_values(BLOCK[::-1], dtype), np.diag([-2.0, -2, 3, 1]))
        image.header.set_xyzt_units("mm")
        image.set_qform(image.affine, 1)
        if slope != 1:
            image.header.set_slope_inter(slope, -10)
        nib.save(image, folder / name)

    kinds = [
        (np.int16, nib.Nifti1Image, 1),
        (np.uint8, nib.Nifti1Image, 1),
        (np.float32, nib.Nifti2Image, 1),
        (np.int16, nib.Nifti1Image, 0.5),
    ]
    return [_written([name], lambda folder, a=k: write(folder, *a)) for k in kinds]  # type: ignore[misc]


def _itk_samples(name: str, names: Sequence[str]) -> list[Files]:
    import SimpleITK as sitk  # noqa: N813

    def write(folder: Path, values: np.ndarray, packed: bool, colour: bool) -> None:
        image = sitk.GetImageFromArray(values, isVector=colour)
        image.SetSpacing([0.7, 0.5, 2.5][: image.GetDimension()])
        sitk.WriteImage(image, str(folder / name), packed)

    kinds = [
        (_values(BLOCK, np.int16), False, False),
        (_values(BLOCK), True, False),
        (_values(PLANE), False, False),
        (_values((*PLANE, 3)), False, True),
    ]
    if name.endswith(".mhd"):
        kinds = [(values, False, colour) for values, _, colour in kinds]
    return [_written(names, lambda folder, a=k: write(folder, *a)) for k in kinds]  # type: ignore[misc]


def _dicom(values: np.ndarray, number: int, packed: str = "") -> bytes:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import (
        UID,
        CTImageStorage,
        ExplicitVRLittleEndian,
        JPEG2000Lossless,
        JPEGLSLossless,
    )

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.{number}")
    meta.TransferSyntaxUID = {
        "": ExplicitVRLittleEndian,
        "j2k": JPEG2000Lossless,
        "jls": JPEGLSLossless,
    }[packed]
    file = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)  # type: ignore[arg-type]
    file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    file.StudyInstanceUID, file.SeriesInstanceUID = "1.2.4", "1.2.5"
    file.Modality, file.InstanceNumber = "CT", number
    file.ImagePositionPatient = [-20.0, 30.0, 2.5 * number]
    file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.Rows, file.Columns = values.shape
    file.PixelSpacing = [0.5, 0.7]
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.WindowCenter, file.WindowWidth = 100, 200
    file.RescaleIntercept, file.RescaleSlope = -10, 1
    pixels = values.astype("<u2")
    if packed:
        import imagecodecs

        if packed == "j2k":
            code = imagecodecs.jpeg2k_encode(pixels, codecformat="j2k")
        else:
            code = imagecodecs.jpegls_encode(pixels)
        file.PixelData = encapsulate([bytes(code)])
        file["PixelData"].VR = "OB"
    else:
        file.PixelData = pixels.tobytes()
    written = io.BytesIO()
    file.save_as(written, enforce_file_format=True)
    return written.getvalue()


def _dicom_samples() -> list[Files]:
    values = _values(PLANE, np.uint16)
    return [{"a.dcm": _dicom(values, 1, packed)} for packed in ("", "j2k", "jls")]


def _series_samples() -> list[Files]:
    values = _values((3, *PLANE), np.uint16)
    return [{f"{number}.dcm": _dicom(plane, number) for number, plane in enumerate(values)}]


def _pillow(name: str, picture: Any, **options: Any) -> Files:
    return _written([name], lambda folder: picture.save(folder / name, **options))


def _png_samples() -> list[Files]:
    import imagecodecs
    from PIL import Image

    grey = Image.fromarray(_values(PLANE))
    colour = Image.fromarray(_values((*PLANE, 3)))
    turned = Image.Exif()
    turned[274] = 6  # the orientation
    return [
        _pillow("a.png", grey),
        _pillow("a.png", colour, exif=turned),
        _pillow("a.png", colour.quantize(16)),
        _pillow("a.png", grey.convert("1")),
        _pillow("a.png", Image.fromarray(_values(PLANE, np.uint16))),
        {"a.png": bytes(imagecodecs.png_encode(_values((*PLANE, 3), np.uint16)))},
    ]


def _jpeg_samples() -> list[Files]:
    from PIL import Image

    colour = Image.fromarray(_values((*PLANE, 3)))
    return [
        _pillow("a.jpg", colour),
        _pillow("a.jpg", colour.convert("L")),
        _pillow("a.jpg", colour, progressive=True),
    ]


def _bmp_samples() -> list[Files]:
    from PIL import Image

    colour = Image.fromarray(_values((*PLANE, 3)))
    return [_pillow("a.bmp", picture) for picture in (colour, colour.convert("L"))]


def _tiff_samples() -> list[Files]:
    import tifffile

    def written(values: np.ndarray, **options: Any) -> Files:
        stream = io.BytesIO()
        tifffile.imwrite(stream, values, **options)
        return {"a.tif": stream.getvalue()}

    stack = _values(BLOCK, np.uint16)
    plane = _values(PLANE)
    return [
        written(plane),
        written(plane, compression="zlib"),
        written(plane, compression="lzw"),
        written(plane, compression="packbits", rowsperstrip=4),
        written(_values((*PLANE, 3)), photometric="rgb", compression="jpeg"),
        written(stack, imagej=True, resolution=(2, 2), metadata={"spacing": 3, "unit": "mm"}),
        written(stack, ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 0.5}),
        written(_values((32, 32)), tile=(16, 16), compression="zlib", photometric="miniswhite"),
    ]


def _npz_samples() -> list[Files]:
    def written(**arrays: np.ndarray) -> Files:
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
        return {"a.npz": stream.getvalue()}

    volume = _values(BLOCK)
    boxes = np.array([[1, 2, 0, 8, 9, 3]])
    return [
        written(imgs=volume, gts=volume, spacing=np.array([0.7, 0.5, 2.5]), boxes=boxes),
        written(imgs=_values((*PLANE, 3)), gts=_values(PLANE), boxes=boxes[:, [0, 1, 3, 4]]),
    ]


ARCHIVED = {"set/images/a.txt": b"an image " * 40, "set/masks/a.txt": b"a mask", "read me": b""}


def _archive_samples() -> list[Files]:
    samples = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            for name, content in ARCHIVED.items():
                archive.writestr(zipfile.ZipInfo(name), content, method)
        samples.append({"a.zip": stream.getvalue()})
    return samples


def _tar_samples(name: str) -> list[Files]:
    samples = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
            for path, content in {**ARCHIVED, f"{'long' * 20}/{'name' * 20}.txt": b"a"}.items():
                member = tarfile.TarInfo(path)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        whole = stream.getvalue()
        samples.append({name: gzip.compress(whole, 1, mtime=0) if name[-1] == "z" else whole})
    return samples


def _npy_samples() -> list[Files]:
    def written(values: np.ndarray) -> Files:
        stream = io.BytesIO()
        np.save(stream, values)
        return {"a.npy": stream.getvalue()}

    return [written(_values(BLOCK)), written(_values((*PLANE, 3)) / np.float32(255))]


DESCRIPTION = b"""name = "tiny"
modality = "X-ray"
dimensions = 2
masks = "labels"
licence = "CC0"
window = [0, 255]
pixel_size = [0.5, 0.5]

[labels]
1 = "right lung"
2 = "left lung"

[colours]
1 = [255, 0, 0]
"""
INDEX = b"""case,image,mask,patient,split
a,a.png,m.png,p1,train
b,b.png,m.png,p2,val
c,c.png,,p3,test
"""


def _folder_samples(first: str) -> list[Files]:
    picture = _png_samples()[0]["a.png"]
    files = {"dataset.toml": DESCRIPTION, "index.csv": INDEX}
    files |= {name: picture for name in ("a.png", "b.png", "c.png", "m.png")}
    return [{first: files[first]} | files]


def _tensors() -> dict[str, Any]:
    import torch

    return {
        "weights.norm.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
        "optimizer.0.step": torch.tensor(3.0),
        "optimizer.0.basis": torch.ones(2, 5, dtype=torch.float16),
    }


def _safetensors_samples(name: str) -> list[Files]:
    from safetensors.torch import save

    return [{name: save(_tensors(), {"step": "3"})}]


def _pth_samples() -> list[Files]:
    import torch

    def written(content: Any, **options: Any) -> Files:
        stream = io.BytesIO()
        torch.save(content, stream, **options)
        return {"a.pth": stream.getvalue()}

    return [
        written(_tensors()),
        written({"model": _tensors(), "epoch": 3}),
        written(_tensors(), _use_new_zipfile_serialization=False),
    ]


def _run_samples() -> list[Files]:
    settings = {
        "shots": 4, "backbone": "pocket", "weights": "random", "size": 64, "seed": 0,
        "changes": ["image_encoder.rank=4"], "precision": "fp32", "accumulate": 1,
        "checkpointing": False, "per_layer": False, "feed": "squeeze", "validations": 0,
        "recipe": "samed", "data": "tiny", "steps": 6, "batch": 2, "processes": 1,
    }  # fmt: skip
    run = {
        "settings": settings,
        "labels": {"1": "right lung"},
        "modality": "X-ray",
        "window": [0, 255],
        "recipe": {"name": "samed"},
        "backbone_sha256": None,
        "train_samples": ["a", "b"],
    }
    return [{"run.json": json.dumps(run, indent=1).encode()}]


def _log_samples() -> list[Files]:
    head = b"step,lr,loss,cross_entropy,dice_loss,val_dice,seconds\n"
    return [{"log.csv": head + b"1,0.001,1.5,0.7,0.8,nan,0.1\n2,0.0005,1.4,0.6,0.8,0.5,0.1\n"}]


WHOLE = View(_whole)
FORMATS = {
    "nii": Format(lambda: _nifti_samples("a.nii"), "a.nii", (View(_whole, _nifti_fields),)),
    "nii.gz": Format(
        lambda: _nifti_samples("a.nii.gz"), "a.nii.gz", (WHOLE, View(_gzip, _nifti_fields))
    ),
    "nrrd": Format(lambda: _itk_samples("a.nrrd", ["a.nrrd"]), "a.nrrd", (WHOLE,)),
    "mha": Format(lambda: _itk_samples("a.mha", ["a.mha"]), "a.mha", (WHOLE,)),
    "mhd": Format(lambda: _itk_samples("a.mhd", ["a.mhd", "a.raw"]), "a.mhd", (WHOLE,)),
    "dicom": Format(_dicom_samples, "a.dcm", (View(_whole, _dicom_fields),)),
    "series": Format(_series_samples, "", (View(_whole, _dicom_fields),)),
    "png": Format(_png_samples, "a.png", (WHOLE, View(_png, _png_fields))),
    "jpeg": Format(_jpeg_samples, "a.jpg", (WHOLE,)),
    "bmp": Format(
        _bmp_samples,
        "a.bmp",
        (View(_whole, lambda part: [(at, 4) for at in range(2, 54, 4)]),),
    ),
    "tiff": Format(_tiff_samples, "a.tif", (View(_whole, _tiff_fields),)),
    "npz": Format(_npz_samples, "a.npz", (View(_whole, _zip_fields), View(_zip))),
    "zip": Format(_archive_samples, "a.zip", (View(_whole, _zip_fields), View(_zip))),
    "tar": Format(
        lambda: _tar_samples("a.tar"), "a.tar", (WHOLE, View(_tar, lambda part: TAR_FIELDS))
    ),
    "tar.gz": Format(lambda: _tar_samples("a.tar.gz"), "a.tar.gz", (WHOLE, View(_gzip))),
    "npy": Format(_npy_samples, "a.npy", (WHOLE, View(_whole, lambda part: [(8, 2)]))),
    "index.csv": Format(lambda: _folder_samples("index.csv"), "index.csv", (WHOLE,), text=True),
    "dataset.toml": Format(
        lambda: _folder_samples("dataset.toml"), "dataset.toml", (WHOLE,), text=True
    ),
    "safetensors": Format(
        lambda: _safetensors_samples("a.safetensors"),
        "a.safetensors",
        (View(_whole, lambda part: [(0, 8)]), View(_safetensors)),
        text=True,
    ),
    "pth": Format(_pth_samples, "a.pth", (View(_whole, _zip_fields), View(_zip))),
    "checkpoint": Format(
        lambda: _safetensors_samples("checkpoint.safetensors"),
        "checkpoint.safetensors",
        (View(_whole, lambda part: [(0, 8)]), View(_safetensors)),
        text=True,
    ),
    "run.json": Format(_run_samples, "run.json", (WHOLE,), text=True),
    "log.csv": Format(_log_samples, "log.csv", (WHOLE,), text=True),
}
