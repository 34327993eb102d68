"""What libraries print about a file does not reach the terminal, and everything else does."""

import logging
import os
import threading
import warnings
import zipfile

import imagecodecs
import numpy as np
import pytest

from medsaga_lib.data.geometry import Geometry
from medsaga_lib.data.images import Stored, read_stored
from medsaga_lib.data.label_files import write_labels
from medsaga_lib.data.problems import BadFile
from medsaga_lib.data.quiet import LOGGERS, quiet
from medsaga_lib.errors import UserError
from medsaga_lib.inference.user_boxes import stored_boxes


def speak(word):
    """Print in each of the ways that libraries use."""
    warnings.warn(word, stacklevel=1)
    for name in LOGGERS:
        logging.getLogger(name).error(word)
    os.write(2, word.encode())


def test_nothing_is_printed_inside_and_all_of_it_outside(capfd, caplog):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with quiet, quiet:
            speak("inside")
        with quiet:
            speak("inside")
        speak("outside")
    assert capfd.readouterr().err == "outside"
    assert [str(one.message) for one in warned] == ["outside"]
    assert [record.message for record in caplog.records] == ["outside"] * len(LOGGERS)


def test_an_error_turns_the_streams_on_again(capfd):
    with pytest.raises(ValueError, match="bad"), quiet:
        raise ValueError("bad")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_threads_that_overlap_leave_the_streams_as_they_were(capfd):
    """The first thread ends before the second one."""
    second_is_in, first_is_out = threading.Event(), threading.Event()

    def second():
        with quiet:
            second_is_in.set()
            first_is_out.wait(10)
            os.write(2, b"inside")

    thread = threading.Thread(target=second)
    with quiet:
        thread.start()
        assert second_is_in.wait(10)
    first_is_out.set()
    thread.join(10)
    os.write(2, b"outside")
    assert capfd.readouterr().err == "outside"


def test_a_damaged_picture_gives_one_sentence_and_no_warning(tmp_path, capfd):
    """libpng writes to the standard error itself."""
    content = bytearray(imagecodecs.png_encode(np.zeros((9, 9, 3), np.uint16)))
    content[content.index(b"IDAT") + 8] ^= 255
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(BadFile, match=r"cannot be read as \.png"):
        read_stored(tmp_path / "a.png")
    assert capfd.readouterr() == ("", "")


def test_a_written_volume_prints_nothing(tmp_path, capfd):
    """ITK writes about directions that are nearly orthogonal to the standard error itself."""
    affine = np.diag([0.7, 0.5, 2.5, 1.0])
    affine[0, 2] = 1e-310
    values = np.zeros((2, 3, 4))
    picture = Stored(tmp_path / "a.nrrd", values, (2.5, 0.5, 0.7), Geometry(affine))
    write_labels(tmp_path / "b.nrrd", picture, np.zeros((2, 3, 4), np.int64))
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "b.nrrd").exists()


def test_an_array_whose_header_warns_prints_nothing(tmp_path, capfd):
    """NumPy evaluates the header of an array; Python warns of an escape that it does not know."""
    path = tmp_path / "a.npz"
    header = rb"{'descr': '<f8', 'fortran_order': False, 'shape': (1, 4), '\z': 0}"
    header = header[:-1] + b", }" + b" " * 40 + b"\n"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("boxes", "gts"):
            start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
            file.writestr(f"{name}.npy", start + header + np.zeros(4).tobytes())
    for read in (stored_boxes, lambda path: read_stored(path, is_mask=True)):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with pytest.raises(UserError):
                read(path)
        assert not warned
    assert capfd.readouterr().err == ""
