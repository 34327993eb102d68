"""Archives from the internet: what is refused, and that nothing of it is written."""

import io
import re
import stat
import tarfile
import zipfile

import pytest

from medsaga_lib.data.fetching import archives
from medsaga_lib.data.fetching.archives import unpack
from medsaga_lib.errors import UserError
from tests.data.fetching.builders import tarred, zipped

FILES = {"top/a.txt": b"one", "top/deep/b.bin": bytes(5000)}


@pytest.fixture
def put(tmp_path):
    """Write an archive and make the folder to unpack it to; returns both."""
    folder = tmp_path / "folder"
    folder.mkdir()

    def write(content, name="a.zip"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name, folder

    return write


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(("pack", "name"), [(zipped, "a.zip"), (tarred, "a.tar")])
def test_files_come_out_as_they_went_in(pack, name, put):
    archive, folder = put(pack(FILES), name)
    unpack(archive, folder, progress=False)
    assert contents(folder) == FILES


def test_only_wanted_files_and_no_hidden_ones(put):
    files = {**FILES, "top/._a.txt": b"", "__MACOSX/a.txt": b"", ".git/a.txt": b""}
    archive, folder = put(zipped(files))
    unpack(archive, folder, ["*/top/*.txt"], progress=False)  # also if top is at the root
    assert set(contents(folder)) == {"top/a.txt"}


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", "C:/out.txt"])
@pytest.mark.parametrize(("pack", "ending"), [(zipped, ".zip"), (tarred, ".tar")])
def test_a_path_outside_is_refused(name, pack, ending, put, tmp_path):
    archive, folder = put(pack({**FILES, name: b"x"}), f"a{ending}")
    with pytest.raises(UserError, match="may lie outside the folder"):
        unpack(archive, folder, progress=False)
    assert contents(tmp_path).keys() == {archive.name}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_a_tar_are_refused(kind, put):
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as opened:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = kind, "/etc/passwd"
            opened.addfile(info)
        archive, folder = put(buffer.getvalue(), "a.tar")
    with pytest.raises(UserError, match="'link', which is a link or a device"):
        unpack(archive, folder, progress=False)


def test_a_link_of_a_zip_is_refused(put):
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w") as opened:
            info = zipfile.ZipInfo("link")
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            opened.writestr(info, "/etc/passwd")
        archive, folder = put(buffer.getvalue())
    with pytest.raises(UserError, match="which is a link"):
        unpack(archive, folder, progress=False)


def test_a_bomb_is_refused_before_it_is_written(put, monkeypatch):
    monkeypatch.setattr(archives, "ALWAYS_BYTES", 1000)
    archive, folder = put(zipped({"zeros": bytes(1_000_000)}))
    assert archive.stat().st_size < 5000  # 20 times that is less than the million
    with pytest.raises(UserError, match=r"states 1,000,000 bytes of files, more than"):
        unpack(archive, folder, progress=False)
    assert contents(folder) == {}


def test_too_many_members_are_refused(put, monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 1)
    archive, folder = put(zipped(FILES))
    with pytest.raises(UserError, match="has more than 1 members"):
        unpack(archive, folder, progress=False)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_a_damaged_archive_says_what_to_do(name, put):
    archive, folder = put(b"<html>Sign in</html>", name)
    with pytest.raises(UserError, match=r"cannot be unpacked .*; delete it and fetch it again"):
        unpack(archive, folder, progress=False)


def test_a_changed_byte_is_found(put):
    content = bytearray(zipped({"a.txt": b"A sentence that is long enough to be compressed. " * 9}))
    content[60] ^= 255
    archive, folder = put(bytes(content))
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(archive, folder, progress=False)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.txt", "a.txt"], "'a.txt' twice"),
        (["a", "a/b.txt"], "'a/b.txt' twice, or as a file and a folder"),
        (["a/b.txt", "a"], "'a' twice, or as a file and a folder"),
        (["x" * 256], "whose name no file can have"),
        (["."], "whose name no file can have"),
    ],
)
def test_names_that_no_folder_can_hold_are_refused(names, said, put):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    archive, folder = put(stream.getvalue(), "a.tar")
    with pytest.raises(UserError, match=re.escape(said)):
        unpack(archive, folder, progress=False)
    assert contents(folder) == {}


def test_another_archive_is_recognised(put):
    archive, folder = put(zipped(FILES))
    with pytest.raises(UserError, match=r"holds no files such as \*\.nii\.gz"):
        unpack(archive, folder, ["*.nii.gz"], progress=False)
