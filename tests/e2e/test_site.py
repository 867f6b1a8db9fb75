"""The documentation site builds without a warning and without a network, and its pages need no other server."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bend_hf.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "_site" / "push.py"


def load(path: Path) -> object:
    """A script of the site as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    for name in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed; it comes with the extra docs")
    folder = tmp_path_factory.mktemp("site") / "site"
    # Any request goes to a port where nothing listens.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "HTTPS_PROXY": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_pages_load_nothing_from_other_servers(site: Path) -> None:
    found = []
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        found += re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?https?://[^\"'>]+", text)
        found += re.findall(r"<link[^>]*rel=[\"']?(?:stylesheet|preload|preconnect|icon)[^>]*https?://[^>]+", text)
    for style in site.rglob("*.css"):
        found += re.findall(r"(?:url\(|@import )[\"']?https?://[^)\"']+", style.read_text(encoding="utf-8"))
    assert not found


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    import bend_hf

    text = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html"))
    documented = set(re.findall(r'id="(bend_hf[\w.]+)"', text))
    for name in set(bend_hf.__all__) - {"__version__", "MODELS", "TASKS"}:
        value = getattr(bend_hf, name)
        assert f"{value.__module__}.{value.__qualname__}" in documented, name
    assert "bend-hf variants" in text


def test_pages_of_the_repository_are_on_the_site(site: Path) -> None:
    for page in (ROOT / "docs").glob("[!R]*.md"):
        assert (site / f"{page.stem}.html").is_file()
    start = (site / "getting_started.html").read_text(encoding="utf-8")
    assert 'href="from_bend.html"' in start
    assert ".md" not in re.sub(r"<code>.*?</code>", "", " ".join(re.findall(r'href="([^"]+)"', start)))
    tutorial = (site / "tutorials" / "unsupervised_variant_effects.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in tutorial
    assert 'href="unsupervised_variant_effects.ipynb"' in tutorial
    assert (site / "tutorials" / "unsupervised_variant_effects.ipynb").is_file()


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A small site."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<p>home</p>")
    (tmp_path / "assets" / "style.css").write_text("p {}")
    return tmp_path


def test_a_push_plans_a_static_space(pages: Path) -> None:
    upload = load(SCRIPT).plan(pages, "me/docs")  # type: ignore[attr-defined]
    assert (upload.repo_type, upload.space_sdk, upload.mirrored) == ("space", "static", ("assets",))
    assert [file.path for file in upload.files] == ["README.md", "assets/style.css", "index.html"]
    assert b"sdk: static" in upload.files[0].read()
    (pages / "index.html").unlink()
    with pytest.raises(ConfigError, match="run 'make site' first"):
        load(SCRIPT).plan(pages, "me/docs")  # type: ignore[attr-defined]


def test_a_dry_run_sends_nothing(pages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load(SCRIPT).main([str(pages), "me/docs", "--dry-run"]) == 0  # type: ignore[attr-defined]
    assert "me/docs" in capsys.readouterr().out
