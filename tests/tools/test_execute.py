"""Chapters run once, each in its own process, are measured, and fail with place and reason."""

import hashlib
import os
import time
from pathlib import Path

import nbformat
import papermill
import pytest
import torch

from medsaga_lib.data.catalog import DATA_VARIABLE
from tools import book, execute, pairs
from tools.book import BookError


def executed(small_book):
    (path,) = execute.execute(small_book.root, "quick").values()
    return path


def test_a_chapter_is_executed_once_and_measured(small_book):
    small_book.commit()
    small_book.edit_chapter("print(profile, 1 + 1)", "block = b'1' * 500_000_000\nprint(profile)")
    small_book.edit_chapter("print(profile)", "print(profile, open('recorded/a.txt').read())")
    (small_book.root / "notebooks" / "recorded").mkdir()
    (small_book.root / "notebooks" / "recorded" / "a.txt").write_text("recorded")
    started = time.monotonic()
    (path,) = execute.execute(small_book.root, "colab").values()
    took = (time.monotonic() - started) / 60
    notebook = pairs.read_notebook(path)
    made = notebook.metadata["medsaga"]
    assert 0.5 < made["gigabytes"] < 0.8  # the block, and a kernel of less than 0.1 GB
    assert 0 < made["minutes"] < took
    assert made["seed"] == 3
    assert made["profile"] == "colab"
    assert "colab recorded\n" in [
        out.text for cell in book.code_cells(notebook) for out in cell.outputs
    ]
    assert made["data"] == ["phantom_small, drawn"]
    assert made["commit"].endswith("+")  # the chapter was edited
    assert made["versions"]["torch"] == torch.__version__
    text = path.read_text()
    assert "injected-parameters" not in text
    assert str(small_book.root) not in text
    sources = [cell.source for cell in notebook.cells]
    assert sources == [cell.source for cell in small_book.unfolded().cells]

    before = path.stat().st_mtime_ns
    assert list(execute.execute(small_book.root, "colab").values()) == [path]
    assert path.stat().st_mtime_ns == before


def test_the_time_of_a_slow_cell_is_recorded(small_book, monkeypatch):
    monkeypatch.setattr(execute, "SLOW_CELL", 3)
    slow = "import time\n\ntime.sleep(3)"
    small_book.edit_chapter("print(profile, 1 + 1)", slow)
    root, (chapter,) = small_book.root, book.chapters(small_book.root)
    (root / execute.STAGE / "notebooks").mkdir(parents=True)
    (root / execute.EXECUTED).mkdir()
    target = root / execute.EXECUTED / "one.ipynb"
    made = execute.execute_one(root, chapter, target, "quick")
    sources = {cell["id"]: cell.source for cell in pairs.read_notebook(target).cells}
    assert [sources[name] for name in made["slow"]] == [slow]


def test_a_failing_cell_is_named_with_the_end_of_its_traceback(small_book):
    small_book.edit_chapter("print(profile, 1 + 1)", "wrong = 1\nwrong / 0")
    with pytest.raises(BookError) as raised:
        executed(small_book)
    said = str(raised.value).splitlines()
    assert said[0] == "notebooks/01_small.ipynb: cell 5 failed (wrong = 1)"
    assert said[-1] == "ZeroDivisionError: division by zero"
    assert list((small_book.root / execute.EXECUTED).glob("*.ipynb")) == []


def test_a_kernel_that_dies_is_reported_and_not_tried_again(small_book):
    small_book.edit_chapter("print(profile, 1 + 1)", "import os\nos._exit(1)")
    with pytest.raises(BookError, match=r"notebooks/01_small.ipynb: Kernel died"):
        executed(small_book)


def test_only_a_kernel_that_does_not_start_is_tried_again(small_book, monkeypatch):
    starts = []

    def does_not_start(*_, **__):
        starts.append(1)
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(papermill, "execute_notebook", does_not_start)
    with pytest.raises(RuntimeError, match="before replying"):
        execute.execute_one(
            small_book.root, book.chapters(small_book.root)[0], small_book.root / "a.ipynb", "quick"
        )
    assert len(starts) == execute.STARTS


def key(small_book, profile="quick", data=""):
    (target,) = execute.targets(small_book.root, profile, data).values()
    return target.name


def test_the_key_changes_with_all_that_an_output_depends_on_and_nothing_else(small_book, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").write_bytes(b"12")
    (small_book.root / "notebooks" / "recorded").mkdir()
    recorded = [small_book.root / "notebooks" / "recorded" / name for name in ("read", "unread")]
    for path in recorded:
        path.with_suffix(".json").write_text("1")
    keys = [key(small_book), key(small_book, "colab"), key(small_book, data=str(data))]
    (data / "a.png").write_bytes(b"123")
    keys.append(key(small_book, data=str(data)))
    (data / "a.png").rename(data / "b.png")
    keys.append(key(small_book, data=str(data)))
    for file, old, new in (
        ("medsaga_lib/one.py", "one = 1", "one = 2"),
        ("requirements.txt", "", "torch==1\n"),
        ("notebooks/01_small.ipynb", "1 + 1", "open('read' + '.json')"),
        ("notebooks/recorded/read.json", "1", "2"),
    ):
        small_book.edit(old, new, file=file)
        keys.append(key(small_book))
    assert len(set(keys)) == len(keys)

    same = key(small_book)
    os.utime(small_book.root / "medsaga_lib" / "one.py")
    (small_book.root / "README.md").write_text("other")
    (small_book.root / "notebooks" / "recorded" / "unread.json").write_text("2")
    (small_book.root / "medsaga_lib" / "__pycache__").mkdir()
    (small_book.root / "medsaga_lib" / "__pycache__" / "one.pyc").write_bytes(b"1")
    assert key(small_book) == same


def test_the_digest_is_sha256_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    inner = hashlib.sha256(b"abc").digest()
    expected = hashlib.sha256(b"text" + b"a" + inner).hexdigest()[:16]
    assert execute.digest(tmp_path / "a", text="text") == expected


def test_a_data_folder_that_is_not_there_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDSAGA_DATA", str(tmp_path / "gone"))
    with pytest.raises(BookError, match=r"MEDSAGA_DATA"):
        execute.data_folder()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDSAGA_DATA", ".")
    assert execute.data_folder() == str(tmp_path.resolve())
    monkeypatch.delenv("MEDSAGA_DATA")
    assert execute.data_folder() == ""


def output_cell(output, tags=()):
    cell = nbformat.v4.new_code_cell("1", outputs=[output], metadata={"tags": list(tags)})
    return nbformat.v4.new_notebook(cells=[cell])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("stdout", "fine\n", None),
        ("stdout", "100% of 3|4 images\n", None),
        ("stderr", "UserWarning: old\n", "cell 1 writes to stderr: UserWarning: old"),
        ("stderr", " 50%|#####     | 1/2\r100%|##########| 2/2", "cell 1 prints a progress bar"),
        ("stdout", "epoch 1\repoch 2", "cell 1 prints a progress bar"),
    ],
)
def test_warnings_and_progress_bars_do_not_reach_a_page(name, text, said):
    notebook = output_cell(nbformat.v4.new_output("stream", name=name, text=text))
    assert list(execute.blemishes(notebook)) == ([said] if said else [])


def test_a_page_shows_the_html_of_a_widget_that_has_it():
    both = {execute.WIDGET: {"model_id": "1"}, "text/html": "<p>"}
    notebook = output_cell(nbformat.v4.new_output("display_data", data=both))
    (output,) = execute.without_kernel(notebook).cells[0].outputs
    assert output.data == {"text/html": "<p>"}
    assert list(execute.blemishes(notebook)) == []


def test_a_widget_needs_a_tag_that_removes_it_from_the_page():
    widget = nbformat.v4.new_output("display_data", data={execute.WIDGET: {}})
    assert list(execute.blemishes(output_cell(widget))) == [
        "cell 1 shows a widget, which needs a kernel; tag it 'remove-output'"
    ]
    assert list(execute.blemishes(output_cell(widget, tags=["remove-output"]))) == []


@pytest.mark.parametrize(
    ("speed", "declared", "minutes", "gigabytes", "said"),
    [
        (1, "1 minute", 1.5, 1.1, []),
        (1, "1 minute", 1.51, 1.0, ["a.ipynb: took 1.51 minutes; its budget allows 1.5"]),
        (2, "3 minutes", 4.51, 1.0, ["a.ipynb: took 4.51 minutes; its budget allows 4.5"]),
        (0.5, "3 minutes", 9.0, 1.0, []),
        (0.5, "3 minutes", 9.01, 1.0, ["a.ipynb: took 9.01 minutes; its budget allows 9"]),
        (0.5, "1 minute", 1.0, 1.11, ["a.ipynb: needed 1.11 GB; its budget allows 1.1"]),
    ],
)
def test_a_budget_holds_what_was_measured(
    tmp_path, monkeypatch, speed, declared, minutes, gigabytes, said
):
    monkeypatch.setattr(execute, "gigaflops", lambda: speed * execute.REFERENCE)
    first = f"# T\n\n**Budget** {declared} on two CPU cores, 1 GB of memory, 0 MB to download"
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell(first)],
        metadata={"medsaga": {"minutes": minutes, "gigabytes": gigabytes}},
    )
    nbformat.write(notebook, tmp_path / "a.ipynb")
    assert list(execute.over_budget("a.ipynb", tmp_path / "a.ipynb")) == said


def test_the_longest_chapters_start_first(tmp_path, monkeypatch):
    started = []

    class Done:
        returncode = 0

        def __init__(self, command, **_):
            started.append(Path(command[3]).stem)

        poll = staticmethod(lambda: 0)
        communicate = staticmethod(lambda: ("", None))

    monkeypatch.setattr(execute.subprocess, "Popen", Done)
    monkeypatch.setattr(execute, "log_file", lambda root, chapter: root / f"{chapter.stem}.log")
    minutes = {"a": "2 minutes", "b": "3 minutes", "c": None, "d": "2 minutes", "e": "1 minute"}
    for name, declared in minutes.items():
        first = f"**Budget** {declared} on two CPU cores, 1 GB of memory, 0 MB to download"
        cells = [nbformat.v4.new_markdown_cell(f"# T\n\n{first if declared else ''}")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    waiting = {Path(f"{name}.ipynb"): Path() for name in minutes}
    execute.in_own_processes(tmp_path, waiting, "quick")
    assert started == ["c", "b", "a", "d", "e"]


def test_the_speed_of_this_machine_is_plausible_and_leaves_the_threads(monkeypatch):
    monkeypatch.setattr(execute, "PRODUCTS", 3)
    before = torch.get_num_threads()
    assert 1 < execute.gigaflops.__wrapped__() < 1000
    assert torch.get_num_threads() == before


def test_a_broken_budget_stops_the_build_server_and_warns_elsewhere(
    small_book, monkeypatch, capsys
):
    monkeypatch.setattr(execute, "over_budget", lambda *_: iter(["too slow"]))
    monkeypatch.setattr(execute, "in_own_processes", lambda *_: None)
    monkeypatch.delenv("CI", raising=False)
    execute.execute(small_book.root, "quick")
    assert "warning: too slow" in capsys.readouterr().out
    monkeypatch.setenv("CI", "true")
    with pytest.raises(BookError, match="too slow"):
        execute.execute(small_book.root, "quick")


@pytest.mark.parametrize("there", [True, False])
def test_cells_for_real_images_are_left_out_without_them(small_book, there, monkeypatch, tmp_path):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    if there:
        monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    notebook = pairs.read_notebook(small_book.notebook)
    first, *rest = notebook.cells
    rest[-1].metadata["tags"] = [book.REAL]
    kept = execute.without_real(notebook).cells
    if there:
        assert kept == [first, *rest]
    else:
        assert kept == [first, kept[1], *rest[:-1]]
        assert "left out: 1." in kept[1].source
