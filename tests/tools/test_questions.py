"""The questions of the chapters work by keyboard and without a kernel, and without scripts."""

import pathlib

import pytest
from markdown_it import MarkdownIt
from playwright.sync_api import sync_playwright

from tools import book, pairs, questions, site

REPOSITORY = pathlib.Path(__file__).parents[2]
STATIC = REPOSITORY / "book" / "_static"
CHAPTERS = book.chapters(REPOSITORY)

chromium = pytest.mark.skipif(site.browser_path() is None, reason="no Chromium on this machine")


def cells(chapter):
    """The sources of a chapter's questions."""
    notebook = pairs.read_notebook(REPOSITORY / chapter)
    return [cell.source for cell in notebook.cells if questions.QUESTION in book.tags(cell)]


def texts(source):
    """The options and the answers of a question as a browser shows them, without the marks."""
    form = questions.FORM.fullmatch(source.strip())
    render = MarkdownIt().renderInline
    shown = [questions.LINE.findall(form[part]) for part in ("options", "answers")]
    return [[(letter, render(text)) for letter, text in lines] for lines in shown]


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all tests."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=site.browser_path(), args=site.FLAGS)
        yield started
        started.close()


@pytest.fixture
def opened(browser, tmp_path):
    """A function that opens a page with questions, with or without scripts."""
    contexts = []

    def open_page(sources, scripts=True):
        content = "".join(MarkdownIt().render(source) for source in sources)
        names = ("book.css", "shared.js", "questions.js")
        style, *scripts_of = [(STATIC / name).read_text(encoding="utf-8") for name in names]
        tags = [f"<script>{text}</script>" for text in scripts_of]
        page = tmp_path / "page.html"
        page.write_text(
            f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Q</title>"
            f"<style>{style}</style>"
            f"{''.join(tags)}</head><body><main class='bd-article'>{content}</main></body></html>",
            encoding="utf-8",
        )
        contexts.append(browser.new_context(java_script_enabled=scripts))
        shown = contexts[-1].new_page()
        shown.set_default_timeout(10_000)
        shown.goto(page.as_uri())
        return shown

    yield open_page
    for context in contexts:
        context.close()


def test_every_chapter_has_its_questions():
    for chapter in CHAPTERS:
        assert list(questions.problems(pairs.read_notebook(REPOSITORY / chapter))) == []


@chromium
def test_each_option_of_each_chapter_gets_its_answer(opened):
    sources = [source for chapter in CHAPTERS for source in cells(chapter)]
    page = opened(sources)
    forms = page.locator("fieldset.question").all()
    assert len(forms) == len(sources)
    for form, source in zip(forms, sources, strict=True):
        options, answers = texts(source)
        radios = form.get_by_role("radio").all()
        labels = form.locator("label span").evaluate_all("all => all.map(one => one.innerHTML)")
        assert [label.split(". ", 1)[1] for label in labels] == [text for _, text in options]
        for radio, (letter, said) in zip(radios, answers, strict=True):
            radio.check()
            form.get_by_role("button", name="Check").click()
            status = form.get_by_role("status")
            assert status.inner_html().split("</strong> ", 1)[1] == said
            kind = "right" if said.startswith(questions.RIGHT) else "wrong"
            assert status.locator(f"strong.question-{kind}").inner_text() == f"{letter}."


@chromium
def test_a_question_is_answered_by_keyboard_alone(opened):
    page = opened(cells(CHAPTERS[0])[:1])
    status = page.get_by_role("status")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")  # past the options, none of which is chosen
    page.keyboard.press("Enter")
    assert status.inner_text() == "Choose an option first."
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowDown")
    assert status.inner_text() == ""  # nothing is told before it is asked for
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert status.inner_text().split()[1] in {questions.RIGHT + ":", questions.WRONG + ":"}


@chromium
def test_a_screen_reader_finds_names_and_roles(opened):
    page = opened(cells(CHAPTERS[0])[:2])
    group = page.get_by_role("group", name="Question 2")
    assert group.get_by_role("radio").count() == 3
    names = page.locator("input[type=radio]").evaluate_all("all => all.map(one => one.name)")
    assert names == ["question-0"] * 3 + ["question-1"] * 3
    assert not page.locator("details").first.is_visible()


@chromium
def test_without_scripts_the_answers_are_folded_below_the_options(opened):
    source = cells(CHAPTERS[0])[0]
    page = opened([source], scripts=False)
    assert page.locator("main > ul > li").count() == 3
    answers = page.locator("details.answers ul > li")
    assert not answers.first.is_visible()
    page.locator("summary").click()
    assert answers.first.is_visible()
    assert answers.count() == 3
