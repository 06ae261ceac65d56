"""The report page in a browser: it renders, answers clicks, asks for nothing, and believes no name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import symtorch_core as st
from symtorch_core.expressions import parse
from symtorch_core.storage.documents import write_document
from symtorch_core.testing.scripted import ScriptedRegressor
from symtorch_core.views.figures import render_following
from symtorch_core.views.page import build_page, measure_sensitivity
from symtorch_core.views.page_fronts import build_equation_front, get_equation_rows
from symtorch_core.views.page_parts import Equation, Page, Section, Table, Text
from symtorch_pca.reducer import PCAReducer

pytest.importorskip("matplotlib")
HOSTILE = "<script>window.evil=1</script>"
X = torch.rand(400, 3, generator=torch.Generator().manual_seed(0)) * 4 - 2
EQUATIONS = ("2.0*x0", "2.0*x0 + x1*x2", "2.0*sin(1.5*x0) + 0.1", "2.0*sin(1.5*x0) + x1*x2", "1.1*x1")


def distilled(outputs: int = 2, **options: Any) -> st.Distillation:
    Y = torch.stack(
        [2 * torch.sin(1.5 * X[:, 0]) + (i + 1) * X[:, 1] * X[:, 2] for i in range(outputs)], dim=1
    )
    settings: dict[str, Any] = {
        "regressor": ScriptedRegressor(equations=EQUATIONS),
        "output_names": [HOSTILE, *(f"y_{i}" for i in range(1, outputs))],
        "select": "best",
        "progress": False,
        **options,
    }
    return st.distill((X, Y), **settings)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; its log of requests and of the console is kept."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with its driver on this machine (Debian: chromium chromium-driver)")
    from selenium.webdriver.chrome.service import Service

    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for switch in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "hide-scrollbars", "window-size=1200,900",
    ):  # fmt: skip
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = selenium.Chrome(options=options, service=Service(driver))
    yield started
    started.quit()


def opened(browser: Any, path: Path) -> Any:
    browser.get(path.as_uri())
    return browser


def requests(browser: Any) -> list[str]:
    """Addresses that the page asked for."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def test_it_opens_without_errors_and_without_a_network(browser: Any, tmp_path: Path) -> None:
    page = opened(browser, distilled().report(tmp_path / "report.html"))
    assert page.find_element("css selector", "h1").is_displayed()
    assert len(page.find_elements("css selector", "svg.figure")) == 2 * 3
    visible = [math for math in page.find_elements("css selector", "math") if math.is_displayed()]
    # A name, a sign and an equation: above for each output, and beside its front; names of figures and variables.
    assert len(visible) == 2 * (3 + 3 + 2 + 3)
    assert all(math.size["height"] > 8 for math in visible)
    assert [entry for entry in page.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}] == []
    assert {url.split(":")[0] for url in requests(page)} <= {"file", "data"}


def test_a_click_on_a_point_shows_its_equation(browser: Any, tmp_path: Path) -> None:
    result = distilled()
    page = opened(browser, result.report(tmp_path / "report.html"))

    def shown() -> str:
        (panel,) = (
            p for p in page.find_elements("css selector", "[data-key=front1] .panel") if p.is_displayed()
        )
        return panel.get_attribute("data-label")

    assert shown() == str(result.chosen()[1].expression)
    for number, candidate in enumerate(result.fronts[1]):
        page.find_element("id", f"front1-{number}").click()
        assert shown() == str(candidate.expression)
    point = page.find_element("id", f"front1-{len(result.fronts[1]) - 1}")
    assert point.get_attribute("aria-pressed") == "true"
    assert len(page.find_elements("css selector", "[data-key=front1] .ring")) == 1
    point.send_keys("\ue012")  # arrow to the left
    assert shown() == str(result.fronts[1][-2].expression)


def read_path(browser: Any) -> str:
    return browser.execute_script("return document.querySelector('.fit g[id$=fit] path').getAttribute('d')")


def test_the_slider_redraws_formula_and_fit(browser: Any, tmp_path: Path) -> None:
    result = distilled(1)
    page = opened(browser, result.report(tmp_path / "report.html"))
    slider = page.find_element("css selector", "input[type=range]")
    position = list(result.fronts[0]).index(result.chosen()[0])
    assert int(slider.get_attribute("value")) == position
    drawn = read_path(page)
    assert drawn.count("M") == 80  # the held-out rows
    for key, number in (("\ue011", 0), ("\ue010", len(result.fronts[0]) - 1)):  # home, end
        slider.send_keys(key)
        (panel,) = (p for p in page.find_elements("css selector", ".panel") if p.is_displayed())
        assert panel.get_attribute("data-label") == str(result.fronts[0][number].expression)
        assert page.find_element("css selector", ".r2").text == panel.get_attribute("data-r2")
        assert page.find_element("id", f"front0-{number}").get_attribute("aria-pressed") == "true"
    page.execute_script("arguments[0].value = 0; arguments[0].dispatchEvent(new Event('input'))", slider)
    assert read_path(page) != drawn
    page.find_element("id", f"front0-{position}").click()
    assert int(slider.get_attribute("value")) == position
    assert read_path(page) == drawn  # the page's script draws what was in the file


def test_an_explorer_slides_in_its_frame(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    result = distilled(2)
    path = tmp_path / "notebook.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><p>Above</p>{result.explore(1)._repr_html_()}")
    page = opened(browser, path)
    page.switch_to.frame(page.find_element("css selector", "iframe"))
    slider = page.find_element("css selector", "input[type=range]")
    before, ring = read_path(page), page.find_element("css selector", ".ring")
    was = ring.get_attribute("cx")
    ActionChains(page).drag_and_drop_by_offset(slider, -slider.size["width"] // 4, 0).perform()
    number = int(slider.get_attribute("value"))
    assert number < list(result.fronts[1]).index(result.chosen()[1])
    (panel,) = (p for p in page.find_elements("css selector", ".panel") if p.is_displayed())
    assert panel.get_attribute("data-label") == str(result.fronts[1][number].expression)
    assert read_path(page) != before
    assert float(ring.get_attribute("cx")) < float(was)
    assert page.execute_script("return document.documentElement.scrollHeight") <= 660
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    page.switch_to.default_content()


def test_over_one_variable_a_curve_is_drawn(browser: Any, tmp_path: Path) -> None:
    x = torch.linspace(-2, 2, 300)[:, None]
    engine = ScriptedRegressor(equations=("theta", "2.0*sin(1.5*theta)", "1.0/theta"))
    result = st.distill(
        (x, 2 * torch.sin(1.5 * x)), regressor=engine, variable_names=["theta"], select="best", progress=False
    )
    fit = build_equation_front(result, 0, get_equation_rows(result, 0)).fit
    assert fit is not None
    assert not fit.dots
    best = list(result.fronts[0]).index(result.chosen()[0])
    height = {x: y for x, y in zip(fit.xs, fit.ys[best], strict=True) if y is not None}
    top = min(height.values())  # SVG counts from above: the sine is highest where 1.5 theta is pi / 2
    highest = [x for x, y in height.items() if y == top]
    share = (sum(highest) / len(highest) - fit.xs[0]) / (fit.xs[-1] - fit.xs[0])
    assert share == pytest.approx((torch.pi / 3 + 2) / 4, abs=0.02)
    page = opened(browser, result.report(tmp_path / "report.html"))
    assert read_path(page).count("M") == 1
    assert "θ" in page.find_element("css selector", ".fit figcaption").text
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_an_equation_without_a_value_leaves_a_gap() -> None:
    nan = torch.tensor([0.0, float("nan"), float("inf"), 1.0], dtype=torch.float64)
    xs = torch.arange(4, dtype=torch.float64)
    fit = render_following(
        lambda ax: ax.set(xlim=(0, 3), ylim=(0, 1)), xs, [nan, xs], chosen=0, key="k", dots=False, caption=""
    )
    assert [y is None for y in fit.ys[0]] == [False, True, True, False]
    assert None not in fit.ys[1]
    path = re.search(r'<g id="k">\s*<path d="([^"]*)"', fit.svg)
    assert path is not None
    assert path.group(1).count("M") == 2


def test_the_formula_is_the_largest_of_all(browser: Any, tmp_path: Path) -> None:
    page = opened(browser, distilled(1, output_names=["theta"]).report(tmp_path / "report.html"))
    formula, title = (page.find_element("css selector", css) for css in (".formula > div", "h1"))
    size = "return parseFloat(getComputedStyle(arguments[0]).fontSize)"
    assert page.execute_script(size, formula) > page.execute_script(size, title)
    assert formula.location["y"] < page.find_element("css selector", "h2").location["y"]
    assert formula.text.startswith("θ")
    note = page.find_element("css selector", ".formula p").text
    assert note.startswith("R² 1.00000 on held-out rows, complexity ")
    page.find_element("css selector", ".formula a").click()
    assert page.find_element("css selector", ":target h2").text == "theta"


def test_of_forty_outputs_twelve_are_drawn_and_all_are_there(tmp_path: Path) -> None:
    result = distilled(40, regressor=ScriptedRegressor(equations=("2.0*x0",)))
    page = build_page(result)
    assert sum(bool(section.key) for section in page.sections) == 12 + 1
    html = page.html()
    assert "y_39" in html
    assert "40 equations by scripted" in html
    assert len(html) < 1_000_000


def test_buttons_copy_what_they_say(browser: Any, tmp_path: Path) -> None:
    result = distilled()
    page = opened(browser, result.report(tmp_path / "report.html"))
    page.execute_script(
        "document.execCommand = () => { window.copied = document.activeElement.value; return true; };"
    )
    page.execute_script("Object.defineProperty(window, 'isSecureContext', {value: false});")
    panel = next(
        p for p in page.find_elements("css selector", "[data-key=front1] .panel") if p.is_displayed()
    )
    buttons = {button.text: button for button in panel.find_elements("css selector", "button")}
    assert list(buttons) == ["Copy LaTeX", "Copy sympy", "Copy Python", "Copy text"]
    buttons["Copy text"].click()
    copied = page.execute_script("return window.copied")
    assert parse(copied, ["x0", "x1", "x2"]) == result.chosen()[1].expression
    assert "np.sin" in buttons["Copy Python"].get_attribute("data-copy")
    assert r"\sin" in buttons["Copy LaTeX"].get_attribute("data-copy")


def test_names_are_text_and_nothing_else(browser: Any, tmp_path: Path) -> None:
    page = opened(browser, distilled().report(tmp_path / "report.html", title=HOSTILE))
    assert page.execute_script("return window.evil") is None
    assert page.title == HOSTILE
    assert HOSTILE in page.find_element("css selector", "h1").text


def test_light_and_dark_wide_and_narrow(browser: Any, tmp_path: Path) -> None:
    path = distilled().report(tmp_path / "report.html")
    page = opened(browser, path)

    def background() -> str:
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    light = background()
    page.find_element("id", "theme").click()
    dark = background()
    assert light != dark
    ink = page.execute_script("return getComputedStyle(document.querySelector('svg.figure text')).fill")
    assert ink == page.execute_script("return getComputedStyle(document.body).color")
    for width in (1200, 390):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        page.get(path.as_uri())
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_ten_outputs_are_less_than_a_megabyte(tmp_path: Path) -> None:
    path = distilled(10).report(tmp_path / "report.html")
    assert path.stat().st_size < 1_000_000
    assert "http://" not in path.read_text().replace("http://www.w3.org", "")


def test_a_saved_file_makes_the_same_page(tmp_path: Path) -> None:
    result = distilled()
    result.save(tmp_path / "result.json")
    again = st.Distillation.load(tmp_path / "result.json")
    assert again.held_out is not None
    assert torch.equal(again.held_out.inputs, result.held_out.inputs)
    assert build_page(again).html() == build_page(result).html()


def test_a_damaged_sample_is_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    distilled().save(path)
    content = json.loads(path.read_text())
    del content["sha256"]
    for broken in ("AAAA", "%%%", 7):
        path.write_text(write_document({**content, "held_out_sample": broken}))
        with pytest.raises(st.FileFormatError):
            st.Distillation.load(path)
    path.write_text(write_document({**content, "held_out_sample": ""}))
    assert st.Distillation.load(path).held_out is None
    st.Distillation.load(path).report(tmp_path / "without.html")


def test_behind_a_reducer_the_outputs_of_the_block_are_shown_too(tmp_path: Path) -> None:
    result = distilled(
        3, reducer=PCAReducer(k_out=2), regressor=ScriptedRegressor(equations=("x0*x1", "sin(x0)"))
    )
    titles = [section.title for section in build_page(result).sections]
    assert titles == [
        "",
        "Fidelity",
        "f0",
        "f1",
        "Outputs of the block",
        "Maps of the reducer",
        "How it was made",
    ]


def test_without_held_out_rows_the_rows_of_the_fit_are_drawn() -> None:
    assert "rows of the fit" in build_page(distilled(test_fraction=0.0)).html()


def test_studies_build_pages_of_their_own() -> None:
    page = Page(
        "A study & more",
        "below",
        (
            Section(
                "One", (Text("a < b"), Table(("x", "y"), (("a", "1"),)), Equation.of("E", parse("m*c^2")))
            ),
        ),
    )
    html = page.html()
    assert "A study &amp; more" in html
    assert "a &lt; b" in html
    assert "<msup>" in html


def test_sensitivity_finds_the_share_of_each_variable() -> None:
    a, b = torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = dict(measure_sensitivity(parse("a*b + 2*b"), {"a": a, "b": b}))
    assert shares["b"] == pytest.approx(1.0, abs=0.05)
    assert shares["a"] == pytest.approx(0.2, abs=0.02)
    assert measure_sensitivity(parse("3.5"), {"a": a}) == ()
