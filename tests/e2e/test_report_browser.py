"""The page of a report in headless Chromium: sorting, filters, themes, keyboard, phone width."""

from __future__ import annotations

import json
import re
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from bend_hf.publishing.leaderboard import leaderboards
from bend_hf.publishing.report.page import page
from bend_hf.tasks import TASKS
from tests.browser import CHROMIUM, Browser
from tests.records import record, several

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; install it to try the page in a browser")

HOSTILE = '<img src=x onerror="window.broken=1"><script>window.broken=1</script>'


def _in_browser(folder: Path, script: str, *flags: str, width: int = 1280) -> Any:
    """What a script of the page's own returns, run after the page's."""
    hostile = record("gene_finding", model=HOSTILE, family=HOSTILE, value=0.1, interval=None)
    text = page(leaderboards([*several(), hostile]), {})
    run = f"<script>const out = (() => {{ {script} }})(); const p = document.createElement('pre'); p.id = 'out'; "
    run += "p.textContent = JSON.stringify(out); document.body.append(p);</script></body>"
    path = folder / "index.html"
    path.write_text(text.replace("</body>", run), encoding="utf-8")
    return _said(path, folder, *flags, width=width)


def _said(path: Path, folder: Path, *flags: str, width: int) -> Any:
    """What the page wrote into its element ``out``."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"),
            *(f"--window-size={width},2000", "--virtual-time-budget=2000", *flags, "--dump-dom", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    return json.loads(unescape(found[1]))


def test_sorting_filters_and_themes(tmp_path: Path) -> None:
    said = _in_browser(
        tmp_path,
        """
        const board = document.querySelector('#scores section[data-task="gene_finding"] table.board');
        const names = () => [...board.tBodies[0].rows].map((row) => row.cells[1].dataset.sort);
        const head = (text) => [...board.tHead.rows[0].cells].find((th) => th.textContent.trim() === text);
        const press = (text) => head(text).querySelector('button').click();
        const shown = () => [...document.querySelectorAll('#scores section')].filter((s) => !s.hidden).length;
        const choose = (id, value) => {
          const select = document.getElementById(id);
          select.value = value;
          select.dispatchEvent(new Event('change'));
        };
        const back = () => getComputedStyle(document.body).backgroundColor;
        const result = { ranked: names(), sections: shown() };
        press('MCC'); result.best_first = names(); result.sort = head('MCC').getAttribute('aria-sort');
        press('MCC'); result.worst_first = names();
        press('Model'); result.by_name = names();
        press('Parameters'); result.by_size = names();
        choose('by-protocol', 'bend-hf-1'); result.one_protocol = shown();
        choose('by-task', 'gene_finding'); result.one_task = shown();
        choose('by-family', 'HyenaDNA'); result.count = document.getElementById('count').textContent;
        result.families = [...document.querySelectorAll('#scores section:not([hidden]) tr[data-family]:not([hidden])')]
          .map((row) => row.dataset.family);
        document.getElementById('reset').click(); result.reset = shown();
        const theme = document.getElementById('theme');
        result.themes = [back()]; theme.click(); result.themes.push(back()); theme.click(); result.themes.push(back());
        result.theme = theme.textContent;
        result.broken = window.broken ?? 0;
        return result;
        """,
    )
    best = ["nt_transformer_ms", "hyenadna-tiny-1k", "dnabert2", "onehot", HOSTILE]
    assert said["ranked"] == said["best_first"] == best
    assert said["sort"] == "descending"
    assert said["worst_first"] == best[::-1]
    assert sorted(said["by_name"], key=str.lower) == said["by_name"]
    assert said["by_size"][0] == "nt_transformer_ms"
    assert said["by_size"][-1] == "onehot"
    assert (said["sections"], said["one_protocol"], said["one_task"], said["reset"]) == (8, 4, 2, 8)
    assert said["count"] == "1 score shown"
    assert set(said["families"]) == {"HyenaDNA"}
    assert said["themes"] == ["rgb(251, 251, 253)", "rgb(251, 251, 253)", "rgb(18, 21, 27)"]
    assert said["theme"] == "Theme: dark"
    assert said["broken"] == 0


def test_the_system_theme_is_followed_and_can_be_left(tmp_path: Path) -> None:
    said = _in_browser(
        tmp_path,
        """
        const back = () => getComputedStyle(document.body).backgroundColor;
        const first = back(); document.getElementById('theme').click(); return [first, back()];
        """,
        "--blink-settings=preferredColorScheme=0",
    )
    assert said == ["rgb(18, 21, 27)", "rgb(251, 251, 253)"]


def test_a_phone_shows_all_without_scrolling_sideways(tmp_path: Path) -> None:
    said = _in_browser(
        tmp_path,
        """
        const cells = [...document.querySelectorAll('.board td')];
        return {
          width: window.innerWidth,
          page: document.documentElement.scrollWidth,
          outside: cells.filter((cell) => cell.getBoundingClientRect().right > window.innerWidth + 1).length,
          cells: cells.length,
          buttons: [...document.querySelectorAll('.board thead button')].filter((b) => b.offsetHeight > 0).length,
          cut: [...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth).length,
        };
        """,
        width=390,
    )
    assert said["width"] <= 500
    assert said["page"] <= said["width"]
    assert said["outside"] == 0
    assert said["cells"] > 100
    assert said["buttons"] == 6 * 8 + 2 * 4  # of the tables of one task, and of those over three tasks
    assert said["cut"] == 0


def test_a_screen_shows_a_table_over_all_tasks_without_scrolling_sideways(tmp_path: Path) -> None:
    long = "nucleotide-transformer-v2-500m-multi-species"
    boards = leaderboards(
        [record(task.key, model, controls={"random_twin": 0.5}) for task in TASKS for model in (long, "a")]
    )
    path = tmp_path / "index.html"
    script = "<script>const p = document.createElement('pre'); p.id = 'out'; p.textContent = "
    script += (
        "JSON.stringify([...document.querySelectorAll('.scroll')].map((box) => [box.scrollWidth, box.clientWidth])); "
    )
    path.write_text(page(boards, {}).replace("</body>", script + "document.body.append(p);</script></body>"))
    [(needed, there)] = _said(path, tmp_path, width=1280)
    assert needed <= there


def test_everything_that_can_be_pressed_is_reached_by_keyboard(tmp_path: Path) -> None:
    said = _in_browser(
        tmp_path,
        """
        const all = [...document.querySelectorAll('button, select, summary, a[href], [tabindex], th')];
        const unnamed = all.filter((e) => e.matches('button, select') &&
          !(e.textContent.trim() || e.getAttribute('aria-label') || e.closest('label')));
        const sortable = [...document.querySelectorAll('thead th')];
        const lost = all.filter((e) => e.matches('button, select, summary, a[href]') && e.tabIndex < 0);
        document.querySelector('thead th button').focus();
        return {
          unnamed: unnamed.length, lost: lost.length, heads: sortable.length,
          heads_with_button: sortable.filter((th) => th.querySelector('button')).length,
          focused: document.activeElement.tagName,
          unlabelled: document.querySelectorAll('.bar:not([aria-label]), .scroll:not([aria-label])').length,
          language: document.documentElement.lang,
        };
        """,
    )
    assert said["unnamed"] == said["lost"] == said["unlabelled"] == 0
    assert said["heads"] == said["heads_with_button"] > 0
    assert said["focused"] == "BUTTON"
    assert said["language"] == "en"


def test_the_page_is_used_by_pressing_keys(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text(page(leaderboards(several()), {"plots/a.svg": b"<svg/>", "plots/b.svg": b"<svg/>"}))
    with Browser(path, tmp_path / "profile") as browser:
        focused = "document.activeElement.textContent.trim().split('\\n')[0]"
        browser.press("Tab")
        assert browser.value(focused) == "Skip to the scores"
        assert browser.value("document.activeElement.getBoundingClientRect().left") >= 0  # it is seen when it has focus
        browser.press("Tab")
        assert browser.value(focused) == "Theme: system"
        browser.press("Enter")
        assert browser.value("document.documentElement.dataset.theme") == "light"
        browser.press(" ")
        assert browser.value("document.documentElement.dataset.theme") == "dark"
        browser.press("Tab")
        assert browser.value("document.activeElement.id") == "by-task"
        browser.press("ArrowDown")
        assert browser.value("document.activeElement.value") == "chromatin_accessibility"
        assert browser.value("document.getElementById('count').textContent") == "8 scores shown"
        browser.press("Tab", times=3)
        assert browser.value(focused) == "Show all"
        browser.press("Enter")
        assert browser.value("document.getElementById('count').textContent") == "24 scores shown"
        sorted_by = "document.activeElement.closest('th').getAttribute('aria-sort')"
        browser.press("Tab", times=3)  # over the table over all tasks, which scrolls, and its first head
        assert browser.value("document.activeElement.closest('th').dataset.column") == "chromatin_accessibility"
        browser.press("Enter")
        assert browser.value(sorted_by) == "descending"
        browser.press(" ")
        assert browser.value(sorted_by) == "ascending"
        for _ in range(200):
            browser.press("Tab")
            if browser.value("document.activeElement.tagName") == "SUMMARY" and browser.value(focused) == "B":
                break
        opened = "document.activeElement.parentElement.open"
        before = browser.value(opened)
        browser.press("Enter")
        assert browser.value(opened) is not before
