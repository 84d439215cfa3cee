"""The report's pages in a headless browser: at a desk and on a phone, in light and in dark."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from experiment_inputs import experiments
from report_inputs import small_suite, write_inputs

from tasks.graph import paths
from tasks.report import reads
from tasks.report.__main__ import write

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
PAGES = ("index", *reads.PAGES)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    suite = small_suite("mini_methods", experiments=experiments())
    root = tmp_path_factory.mktemp("project")
    write_inputs(suite, root)
    write(suite, root)
    return root / paths.report(suite.name)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    if BROWSER is None:
        pytest.skip("needs chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=[(1280, "light"), (768, "light"), (390, "dark")], ids=str)
def page(request: pytest.FixtureRequest, browser: "Browser") -> "Iterator[Page]":
    width, scheme = request.param
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    yield opened
    opened.close()


def test_nothing_is_wider_than_the_screen_or_comes_from_elsewhere(
    report: Path, page: "Page"
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    for name in PAGES:
        page.goto((report / f"{name}.html").as_uri())
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= page.evaluate("window.innerWidth"), name
    assert complaints == []
    assert all(url.startswith(("file:", "data:")) for url in asked)


def test_every_page_leads_to_every_other(report: Path, page: "Page") -> None:
    page.goto((report / "index.html").as_uri())
    for name in reads.PAGES:
        page.get_by_role("navigation").get_by_role(
            "link", name=reads.PAGES[name].TITLE, exact=True
        ).click()
        assert page.url.endswith(f"/{name}.html")
        assert page.locator("h1").inner_text() == reads.PAGES[name].TITLE
        assert page.locator("nav [aria-current=page]").count() == 1


def test_pictures_are_there_and_say_what_they_show(report: Path, page: "Page") -> None:
    for name in PAGES:
        page.goto((report / f"{name}.html").as_uri())
        for picture in page.locator("img").all():
            assert picture.evaluate("img => img.complete && img.naturalWidth") == 1500
            assert len(picture.get_attribute("alt") or "") > 40


def test_tables_have_headings_and_can_be_scrolled_with_the_keyboard(
    report: Path, page: "Page"
) -> None:
    for name in PAGES:
        page.goto((report / f"{name}.html").as_uri())
        for table in page.locator("table").all():
            columns = table.locator("thead th[scope=col]").count()
            for row in table.locator("tbody tr").all()[:3]:
                assert row.locator("th[scope=row]").count() == 1
                assert row.locator("th, td").count() == columns
        for scroll in page.locator(".scroll, figure div").all():
            scroll.focus()
            assert scroll.evaluate("box => box === document.activeElement")


def test_the_average_stays_in_view_and_text_can_be_read(report: Path, page: "Page") -> None:
    page.goto((report / "results.html").as_uri())
    average = page.locator("#transductive ~ .scroll tbody td.summary").first
    average.scroll_into_view_if_needed()
    box = average.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= page.evaluate("window.innerWidth")
    for part in ("body", ".faint", "nav a", "td.best.summary", "tr.reference .name"):
        assert page.locator(part).first.evaluate(CONTRAST) >= 4.5, part


CONTRAST = """element => {
  const channels = text => text.match(/[\\d.]+/g).slice(0, 3).map(v => {
    const c = v / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  const light = text => {
    const [r, g, b] = channels(text);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = getComputedStyle(document.body).backgroundColor;
  const [high, low] = [light(getComputedStyle(element).color), light(ground)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}"""
"""The contrast of an element's text with the page's ground, as WCAG 2 defines it."""
