"""A registry finds declarations by key and by alias, and refuses a name that two of them have."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bend_hf.errors import RegistryError
from bend_hf.registry import Registry

_HEAD = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Dish:
    key: str
    aliases: tuple = ()

"""


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty package ``kitchen`` that can be imported."""
    folder = tmp_path / "kitchen"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "kitchen"]:
        del sys.modules[name]


def dishes(kitchen: Path, **modules: str) -> Registry:  # type: ignore[type-arg]
    for name, declarations in modules.items():
        (kitchen / f"{name}.py").write_text(f"{_HEAD}DISHES = ({declarations},)\n")
    return Registry(kind="dish", package="kitchen", attribute="DISHES")


def test_an_alias_finds_its_declaration_and_is_not_listed(kitchen: Path) -> None:
    found = dishes(kitchen, soups='Dish("borscht", ("beetroot-soup",)), Dish("ramen")', mains='Dish("paella")')
    assert found.get("beetroot-soup") is found.get("borscht")
    assert "beetroot-soup" in found
    assert found.names() == [dish.key for dish in found] == ["borscht", "paella", "ramen"]


def test_a_private_module_takes_no_part(kitchen: Path) -> None:
    assert dishes(kitchen, _secret='Dish("haggis")', soups='Dish("ramen")').names() == ["ramen"]


def test_an_unknown_name_is_told_its_nearest_alias(kitchen: Path) -> None:
    with pytest.raises(RegistryError, match="unknown dish 'beetroot-sup'; did you mean 'beetroot-soup'"):
        dishes(kitchen, soups='Dish("borscht", ("beetroot-soup",))').get("beetroot-sup")


def test_a_key_declared_twice_is_refused(kitchen: Path) -> None:
    with pytest.raises(RegistryError, match=r"dish 'ramen' is declared twice, the second time in kitchen\.soups"):
        dishes(kitchen, mains='Dish("ramen")', soups='Dish("ramen")').names()


@pytest.mark.parametrize("alias", ["ramen", "noodles"])
def test_an_alias_that_is_taken_is_refused(kitchen: Path, alias: str) -> None:
    taken = dishes(kitchen, mains='Dish("ramen", ("noodles",))', soups=f'Dish("udon", ("{alias}",))')
    with pytest.raises(RegistryError, match=f"dish 'udon' has the alias '{alias}', which is a name of dish 'ramen'"):
        taken.get("udon")
