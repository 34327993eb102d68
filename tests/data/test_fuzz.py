"""Damaged files of every format give a valid result or one sentence, in little time and memory."""

import io
import mmap
import os
import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medsaga_lib.data import headers
from medsaga_lib.data.images import read_stored
from medsaga_lib.data.problems import BadFile
from tools import fuzz
from tools.mutations import FORMATS, mutated

COUNT = 200  # damaged files of each format; the command reads 20,000


@pytest.fixture(scope="module")
def reader():
    with fuzz.reader() as one:
        yield one


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_read_or_refused_in_one_sentence(name, reader):
    tally = fuzz.fuzz(reader, name, range(COUNT))
    assert tally.failures == {}
    assert tally.counts["refused"] > COUNT / 20  # the damage reaches the readers
    assert tally.counts["valid"] > 0  # and does not always reach them at the same place


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_seed_is_the_same_damage(name):
    assert mutated(name, 3) == mutated(name, 3)
    assert len({tuple(mutated(name, seed).values()) for seed in range(20)}) > 10


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("raise ValueError('ours')", "ValueError: ours"),
        ("os._exit(3)", "crashed with exit code 3"),
        ("os.write(2, b'a warning')", "printed a warning"),
        ("time.sleep(60)", "took longer than 2 s"),
        # new pages, because malloc may give again what this process has freed
        ("m = mmap.mmap(-1, 100 * 2**20); m[::4096] = bytes(len(m) // 4096)", "needed 1"),
    ],
)
def test_every_kind_of_failure_is_noticed(body, expected, monkeypatch, tmp_path):
    """A forked process has the reader below, which fails on purpose."""
    monkeypatch.setattr(fuzz, "read", lambda name, path: exec(body, vars(fuzz)) or 0)
    monkeypatch.setattr(fuzz, "mmap", mmap, raising=False)
    monkeypatch.setattr(fuzz, "LONGEST", 2.0)
    monkeypatch.setattr(fuzz, "START", "fork")
    monkeypatch.setattr(fuzz, "_load", lambda: None)
    with fuzz.reader() as one:
        outcome = one.attempt("log.csv", 0)
    assert outcome.kind == "failed"
    assert outcome.what.startswith(expected)


# The checks of headers


def test_a_header_that_declares_too_much_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "a.nrrd"
    path.write_bytes(
        b"NRRD0004\ntype: short\ndimension: 3\nsizes: 30000 30000 300\nencoding: raw\n"
        b"endian: little\n\n" + bytes(1000)
    )
    with pytest.raises(BadFile, match=r"30000 x 30000 x 300 x 1 values, too many for a file of"):
        read_stored(path)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = struct.pack(">II", 9000, 9000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(BadFile, match="9000 x 9000 values, too many for a file of"):
        read_stored(tmp_path / "a.png")


def test_what_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((9, 99, 99), np.uint8)), tmp_path / "a.mha")

    class Memory:
        available = 50_000

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    with pytest.raises(BadFile, match=r"GiB of memory.*close other programs"):
        read_stored(tmp_path / "a.mha")


def test_the_densest_valid_files_are_read(tmp_path):
    """A constant picture is the one that deflate packs best."""
    Image.new("RGB", (3000, 3000)).save(tmp_path / "a.png", optimize=True)
    assert read_stored(tmp_path / "a.png").values.shape == (3000, 3000, 3)
    Image.new("RGB", (3000, 3000)).save(tmp_path / "a.jpg", progressive=True, quality=5)
    assert read_stored(tmp_path / "a.jpg").values.shape == (3000, 3000, 3)
    volume = sitk.GetImageFromArray(np.zeros((60, 300, 300), np.int16))
    sitk.WriteImage(volume, tmp_path / "a.nrrd", True)
    assert not read_stored(tmp_path / "a.nrrd").values.any()


def test_a_truncated_dicom_file_names_its_element(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(a_dicom_file()[:-100])
    with pytest.raises(BadFile, match=r"\(7FE0,0010\) has 960 bytes, more than the rest"):
        read_stored(path)


def a_dicom_file():
    return FORMATS["dicom"].samples()[0]["a.dcm"]


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_elements_are_found_in_every_transfer_syntax(syntax, undefined, tmp_path):
    """pydicom is the reference, for nested sequences with and without lengths, both orders."""
    source = dcmread(io.BytesIO(a_dicom_file()))
    inner, outer = Dataset(), Dataset()
    inner.PatientComments = "x" * 700
    outer.ReferencedImageSequence = [inner, inner]
    source.ReferencedSeriesSequence = [outer]
    for holder in (outer["ReferencedImageSequence"], source["ReferencedSeriesSequence"]):
        holder.is_undefined_length = undefined
    source.file_meta.TransferSyntaxUID = syntax
    path = tmp_path / "a.dcm"
    source["PixelData"].VR = "OW"
    little = syntax.is_little_endian
    dcmwrite(path, source, implicit_vr=syntax.is_implicit_VR, little_endian=little)
    headers.require_dicom(path)
    tags = []
    with path.open("rb") as file:
        file.seek(132)
        for tag, length in headers._elements(file):
            tags.append(tag)
            file.seek(length, os.SEEK_CUR)
        assert file.tell() == path.stat().st_size
    read = dcmread(path)
    sequence = int(read["ReferencedSeriesSequence"].tag)
    assert tags[-1] == int(read["PixelData"].tag)
    assert {int(element.tag) for element in read} - set(tags) <= {sequence}
    is_skipped = syntax.is_implicit_VR and not undefined  # its kind is not in the file
    assert (tags.count(0x00104000) == 2) is not is_skipped


@pytest.mark.parametrize("key", ["TransformMatrix", "Orientation"])
@pytest.mark.parametrize("number", ["5", "nan", "I"])
def test_directions_of_a_metaimage_are_cosines(tmp_path, key, number):
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), np.uint8)), path)
    whole = path.read_bytes()
    assert read_stored(path).shape == (3, 4, 5)
    line = f"{key} = 1 0 0 0 1 0 0 0 {number}\n".encode()
    path.write_bytes(whole.replace(b"TransformMatrix = 1 0 0 0 1 0 0 0 1\n", line))
    with pytest.raises(BadFile, match="has a damaged header"):
        read_stored(path)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_big", [False, True])
def test_directories_of_a_tiff_are_in_its_file(tmp_path, order, is_big):
    path = tmp_path / "a.tif"
    pages = np.zeros((40, 3, 4), np.uint8)
    how = {"byteorder": order, "bigtiff": is_big, "photometric": "minisblack"}
    tifffile.imwrite(path, pages, **how)
    assert read_stored(path).shape == pages.shape
    content = bytearray(path.read_bytes())
    kind = {"<": "little", ">": "big"}[order]
    first = int.from_bytes(content[8:16] if is_big else content[4:8], kind)
    width = 8 if is_big else 2
    content[first : first + width] = (4000).to_bytes(width, kind)  # entries
    path.write_bytes(content)
    with pytest.raises(BadFile, match="has damaged directories of pages; copy"):
        read_stored(path)
