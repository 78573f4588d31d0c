"""The page on a run in a browser without a display."""

import json
import shutil

import pytest

from eqjax_experiments import report
from tests.experiments.test_report import RECORDS, row_of, saved, write

pytestmark = pytest.mark.slow
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is missing")
WIDTHS = [390, 1280]
VISIBLE = "[...document.querySelectorAll('.plot')].filter(p => p.offsetParent).length"
DRAWN = "document.querySelectorAll('.plot .main-svg').length"


@pytest.fixture(scope="module")
def browser():
    """Chromium, offline."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no chromium, or no chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(flag)
    options.add_argument("--disable-background-networking")
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    service = webdriver.ChromeService(executable_path=driver)
    started = webdriver.Chrome(options=options, service=service)
    started.execute_cdp_cmd("Network.enable", {})
    conditions = {"offline": True, "latency": 0}
    conditions |= {"downloadThroughput": -1, "uploadThroughput": -1}
    started.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)
    yield started
    started.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of a search, and of a comparison with hostile names."""
    folder = tmp_path_factory.mktemp("runs")
    front = [{**row, "test_error": 0.5} for row in RECORDS[-1]["children"][:2]]
    result = {"front": front, "verdict": {"group": "C4", "reason": "of the test"}}
    run = write(folder / "runs/search", result={**result, "readings": []})
    saved(run / "networks/member-1", "D4", (28, 28))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        compared = folder / "runs/compared"
        compared.mkdir()
        names = ["D4", '<img src="x" onerror="console.error(1)">', "a long name " * 4]
        rows = [row_of(n, s, (s + 1) / 9) for n in names for s in range(3)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (compared / "results.jsonl").write_text(lines)
        for name in ("search", "compared"):
            report.main([name])
    return {n: folder / f"runs/{n}/report.html" for n in ("search", "compared")}


def open_page(browser, path, width, theme="light"):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(path.as_uri())
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60).until(
        lambda _: run(browser, f"{DRAWN} >= {VISIBLE}"), "charts are not drawn"
    )


def run(browser, script):
    return browser.execute_script(f"return {script}")


def requests(browser):
    """The addresses that the page asked for, but for itself."""
    messages = (
        json.loads(e["message"])["message"] for e in browser.get_log("performance")
    )
    sent = (m for m in messages if m["method"] == "Network.requestWillBeSent")
    urls = [m["params"]["request"]["url"] for m in sent]
    return [url for url in urls if not url.startswith(("file:", "data:", "blob:"))]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["search", "compared"])
def test_a_page_is_whole_at_every_width_in_both_themes(
    browser, pages, name, width, theme
):
    open_page(browser, pages[name], width, theme)
    assert run(browser, "document.documentElement.dataset.theme") == theme
    assert run(browser, DRAWN) >= run(browser, VISIBLE) > 0
    assert run(browser, "document.documentElement.scrollWidth") <= width
    assert run(browser, "document.querySelectorAll('img').length") == 0
    texts = "[...document.querySelectorAll('.plot svg text')].map(t => t.textContent)"
    if name == "compared":
        assert any("<img" in text for text in run(browser, texts))
    assert browser.get_log("browser") == []
    assert requests(browser) == []


def color_of_charts(browser):
    return run(
        browser,
        "getComputedStyle(document.querySelector('.plot .xtick text')).fill",
    )


def test_the_theme_is_toggled_and_charts_follow(browser, pages):
    from selenium.webdriver.common.by import By

    open_page(browser, pages["search"], 1280)
    before = color_of_charts(browser)
    button = browser.find_element(By.ID, "theme")
    assert button.text == "Dark"
    button.click()
    assert run(browser, "document.documentElement.dataset.theme") == "dark"
    assert button.text == "Light"
    assert color_of_charts(browser) != before
    button.click()
    assert color_of_charts(browser) == before
    assert browser.get_log("browser") == []


def test_a_layer_is_chosen_and_an_orbit_outlined(browser, pages):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.select import Select
    from selenium.webdriver.support.wait import WebDriverWait

    open_page(browser, pages["search"], 390)
    for anchor in ("learned-kernels", "feature-maps-under-a-turn"):
        section = browser.find_element(By.ID, anchor)
        select = Select(section.find_element(By.TAG_NAME, "select"))
        last = len(select.options) - 1
        select.select_by_index(last)
        options = section.find_elements(By.CLASS_NAME, "option")
        assert [o.is_displayed() for o in options] == [
            i == last for i in range(last + 1)
        ]
        plots = options[last].find_elements(By.CLASS_NAME, "plot")
        assert plots
        assert all(p.find_elements(By.CLASS_NAME, "main-svg") for p in plots)
    kernels = browser.find_element(By.ID, "learned-kernels")
    select = Select(kernels.find_element(By.TAG_NAME, "select"))
    select.select_by_index(0)
    plot = kernels.find_element(By.CLASS_NAME, "plot")
    first = browser.execute_script(
        """const plot = arguments[0], {xaxis, yaxis} = plot._fullLayout;
        const {width, height} = plot.getBoundingClientRect();
        return [
            xaxis._offset + xaxis.d2p(0) - width / 2,
            yaxis._offset + yaxis.d2p(0) - height / 2,
        ];""",
        plot,
    )
    actions = ActionChains(browser)
    actions.move_to_element(plot).move_to_element_with_offset(plot, *first).perform()
    outlined = "return arguments[0].data[1].x.length"
    WebDriverWait(browser, 10).until(lambda b: b.execute_script(outlined, plot))
    same = """const orbits = arguments[0].layout.meta.orbits;
        return orbits.flat().filter(n => n === orbits[0][0]).length"""
    count = browser.execute_script(same, plot)
    assert browser.execute_script(outlined, plot) == count > 1
    assert run(browser, "document.documentElement.scrollWidth") <= 390
    assert browser.get_log("browser") == []


def test_what_is_folded_unfolds(browser, pages):
    from selenium.webdriver.common.by import By

    open_page(browser, pages["search"], 390)
    for details in browser.find_elements(By.TAG_NAME, "details"):
        details.find_element(By.TAG_NAME, "summary").click()
        assert details.find_element(By.TAG_NAME, "table").is_displayed()
    assert run(browser, "document.documentElement.scrollWidth") <= 390
