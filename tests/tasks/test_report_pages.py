"""The report's pages in a headless browser: at a desk and on a phone, in light and in dark, with
and without scripts."""

import re
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
from tasks.report.content import Figure

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

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


SCREENS = [
    (width, scheme, scripts)
    for scripts in (True, False)
    for width, scheme in ((1280, "light"), (768, "light"), (390, "dark"))
]


@pytest.fixture(params=SCREENS, ids=str)
def page(request: pytest.FixtureRequest, browser: "Browser") -> "Iterator[Page]":
    width, scheme, scripts = request.param
    with browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts
    ) as context:
        yield context.new_page()


@pytest.fixture(params=SCREENS[:3], ids=str)
def scripted(request: pytest.FixtureRequest, browser: "Browser") -> "Iterator[Page]":
    width, scheme, _ = request.param
    with browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme
    ) as context:
        yield context.new_page()


def charted(report: Path) -> dict[str, list[int]]:
    """How many charts each figure of a page has, by the page's name."""
    suite = small_suite("mini_methods", experiments=experiments())
    found: dict[str, list[Figure]] = {
        name: list(page.show(suite, report.parents[3]).figures)
        for name, page in reads.pages(suite).items()
    }
    counts = {name: [len(f.panels) for f in figures] for name, figures in found.items()}
    return {name: [n for n in each if n] for name, each in counts.items() if any(each)}


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
        for scroll in page.locator(".scroll, .picture").locator("visible=true").all():
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


def test_charts_take_the_place_of_pictures_and_answer_the_pointer(
    report: Path, scripted: "Page"
) -> None:
    page = scripted
    for name, counts in charted(report).items():
        page.goto((report / f"{name}.html").as_uri())
        figures = page.locator("figure:has(script)")
        page.wait_for_function(
            f"document.querySelectorAll('.js-plotly-plot').length == {sum(counts)}"
        )
        page.wait_for_function(
            "[...document.querySelectorAll('figure:has(script) .picture')].every(p => p.hidden)"
        )
        assert figures.count() == len(counts)
        for charts in page.locator(".charts").all():
            assert charts.get_attribute("role") == "img"
            assert len(charts.get_attribute("aria-label") or "") > 40
        assert page.locator("main a[href^=http], .modebar-btn").count() == 0
        plot = page.locator(".js-plotly-plot").first
        plot.scroll_into_view_if_needed()
        assert said(page, plot), name
        assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")


def said(page: "Page", plot: "Locator") -> str:
    """What stands under the pointer where a chart has its first value."""
    place = plot.evaluate(FIRST_VALUE)
    page.mouse.move(place["x"] - 3, place["y"] - 3)
    page.mouse.move(place["x"], place["y"])
    words = plot.locator(".hoverlayer .hovertext").first
    words.wait_for(timeout=5000)
    return words.text_content() or ""


def test_the_pointer_reads_label_place_value_and_spread(report: Path, scripted: "Page") -> None:
    scripted.goto((report / "sensitivity.html").as_uri())
    plot = scripted.locator(".js-plotly-plot").first
    plot.scroll_into_view_if_needed()
    text = said(scripted, plot)
    labels, point = (
        r"(Task arithmetic|Ties-Merging)",
        r"average top-1 accuracy \(%\): 40\.0 ± 0\.00",
    )
    assert re.fullmatch(f"{labels}scaling: 0{point}", text)  # both rules are there


def test_the_legend_hides_and_shows_lines_with_the_keyboard(report: Path, scripted: "Page") -> None:
    scripted.goto((report / "sensitivity.html").as_uri())
    plot = scripted.locator(".js-plotly-plot").first
    button = scripted.get_by_role("button", name="Task arithmetic", exact=True)
    lines = plot.locator(".scatterlayer .trace")
    count = lines.count()
    button.focus()
    scripted.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert lines.count() == count - 1
    scripted.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "true"
    assert lines.count() == count
    for _ in scripted.locator("figure button").all():  # Tab leads out of the figure
        scripted.keyboard.press("Tab")
    assert scripted.evaluate("!document.activeElement.closest('figure')")


def test_charts_follow_a_change_of_the_scheme(report: Path, scripted: "Page") -> None:
    scripted.goto((report / "sensitivity.html").as_uri())
    text = scripted.locator(".js-plotly-plot .xtitle").first
    for scheme in ("dark", "light", "dark"):
        scripted.emulate_media(color_scheme=scheme)
        scripted.wait_for_timeout(300)
        assert text.evaluate("node => getComputedStyle(node).fill") == scripted.evaluate(
            "getComputedStyle(document.body).color"
        )


def test_pictures_stay_where_scripts_or_the_library_are_missing(
    report: Path, page: "Page", tmp_path: Path
) -> None:
    """As in a viewer that shows one file alone."""
    for name in charted(report):
        lonely = tmp_path / f"{name}.html"
        shutil.copy(report / lonely.name, lonely)
        page.goto(lonely.as_uri())
        assert page.locator(".js-plotly-plot").count() == 0
        for picture in page.locator("figure img").all():
            assert picture.is_visible()


def test_files_of_the_data_are_linked(report: Path, page: "Page") -> None:
    for name in reads.PAGES:
        page.goto((report / f"{name}.html").as_uri())
        linked = [link.get_attribute("href") for link in page.locator("#made_by ~ p a").all()]
        assert linked == list(reads.PAGES[name].FILES)
        assert all((report / str(target)).is_file() for target in linked)


FIRST_VALUE = """plot => {
  const { xaxis, yaxis } = plot._fullLayout;
  const [trace] = plot._fullData;
  const box = plot.getBoundingClientRect();
  const first = trace.y ? trace.y.findIndex(v => v !== null) : 0;
  const x = trace.x ? trace.x[first] : 1;
  const y = trace.type === "bar" ? trace.y[0] / 2 : trace.y ? trace.y[first] : 0;
  const shift = trace.type === "bar" ? 0.4 / plot._fullData.length - 0.4 : 0;
  return {
    x: box.x + xaxis._offset + xaxis.d2p(x + shift), y: box.y + yaxis._offset + yaxis.d2p(y),
  };
}"""
"""Where on the screen a chart has its first value: within a bar, of a heat map a cell."""

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
