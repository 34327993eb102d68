"""Messages, `help` texts and docstrings keep one form: plain sentences that say what to do."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("medsaga_lib", "tools")
    for path in (ROOT / folder).rglob("*.py")
)
ERRORS = {"UserError", "BadFile", "Problem", "BookError", "NonFiniteGradientError", "ValueError"}
REMEDIES = {"UserError": 0, "BadFile": 2, "Problem": 2}  # place of the text that ends the message
OPENINGS = ("Of ", "What ", "Whose ", "Who is ", "Only,")
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
# "leave --axis" reads as "keep --axis"; the way out is "omit --axis"
LEAVE = re.compile(r"; leave | leave --")
# Documents that are not in the repository
ELSEWHERE = re.compile(r"\bMETHODS\b|\b(GALORE|BOOK|WEIGHTS|DESIGN)\.md\b|\bFIELD_REPORTS\b")


class Texts(NamedTuple):
    """The texts of a file, each as (line, text)."""

    messages: list[tuple[int, str]]
    remedies: list[tuple[int, str]]
    helps: list[tuple[int, str]]
    summaries: list[tuple[int, str]]  # first lines of docstrings


def text_of(node: ast.expr) -> str | None:
    """Return the text of a string expression with {} for values; None for another expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "{}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = text_of(node.left), text_of(node.right)
        return None if parts == (None, None) else "".join(part or "{}" for part in parts)
    return None


def texts_in(source: str) -> Texts:
    """Collect the texts of Python code."""
    found = Texts([], [], [], [])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and (docstring := ast.get_docstring(node)):
            found.summaries.append((node.body[0].lineno, docstring.splitlines()[0]))
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        for keyword in node.keywords:
            if keyword.arg == "help" and (text := text_of(keyword.value)) is not None:
                found.helps.append((node.lineno, text))
        if name in ERRORS:
            values = [*node.args, *(keyword.value for keyword in node.keywords)]
            texts = [(place, text_of(value)) for place, value in enumerate(values)]
            found.messages.extend((node.lineno, text) for _, text in texts if text is not None)
            found.remedies.extend(
                (node.lineno, text)
                for place, text in texts
                if text is not None and place == REMEDIES.get(name) and not text.endswith("{}")
            )
    return found


@cache
def read(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def faults(source: str) -> list[str]:
    """Return the texts of a file that do not keep the form, one line each."""
    texts = texts_in(source)
    found = []
    for line, text in [*texts.messages, *texts.helps]:
        if LEAVE.search(text):
            found.append(f"{line}: write omit, not leave: {text}")
    for line, text in [*texts.messages, *texts.helps, *texts.summaries]:
        if text.startswith(OPENINGS):
            found.append(f"{line}: begin with the subject or an imperative: {text}")
    for line, text in texts.remedies:
        if not text.endswith("."):
            found.append(f"{line}: end with a full stop: {text}")
    for line, text in texts.helps:
        if not text[:1].isupper() or not text.endswith("."):
            found.append(f"{line}: a help text begins with a capital, ends with a stop: {text}")
    for number, line in enumerate(source.splitlines(), start=1):
        if ELSEWHERE.search(line):
            found.append(f"{number}: the document is not in the repository: {line.strip()}")
    return found


@pytest.mark.parametrize("file", FILES)
def test_texts_keep_the_form(file):
    assert faults(read(file)) == []


def test_texts_are_found():
    texts = [texts_in(read(file)) for file in FILES]
    assert sum(len(one.messages) for one in texts) > 150
    assert sum(len(one.helps) for one in texts) > 40
    assert sum(len(one.summaries) for one in texts) > 600


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ('raise UserError(f"{path} is gone")', "end with a full stop"),
        ('raise UserError("It fails; " f"leave --axis {axis}.")', "write omit"),
        ('raise errors.UserError("Of " + name)', "begin with the subject"),
        ('raise BadFile(path, "is grey", "save it in colour")', "end with a full stop"),
        ('raise ValueError("What you give is wrong")', "begin with the subject"),
        ('typer.Option("--rank", help="of GaLore.")', "begins with a capital"),
        ('parser.add_argument("--seeds", help="Numbers")', "ends with a stop"),
        ('def f():\n    """What trains, by name."""', "begin with the subject"),
        ("x = 1  # as in BOOK" + ".md", "not in the repository"),
    ],
)
def test_a_fault_is_found(code, fault):
    (found,) = faults(code)
    assert fault in found


def test_a_good_text_is_no_fault():
    code = '''
def train(rank: Annotated[int, typer.Option(help="Rank of GaLore.")]):
    """Train a network."""
    raise UserError(f"{path} is missing; " + way_out)
    raise BadFile(path, f"has {count} rows", remedy)
'''
    assert faults(code) == []
