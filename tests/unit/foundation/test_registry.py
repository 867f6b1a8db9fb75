"""A registry finds declarations by key and by alias, and refuses a name that two of them have."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bend_hf.errors import RegistryError
from bend_hf.registry import Registry
from bend_hf.user_code import load_file

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


def test_an_unknown_name_is_answered_with_its_nearest_alias(kitchen: Path) -> None:
    with pytest.raises(RegistryError, match="unknown dish 'beetroot-sup'; did you mean 'beetroot-soup'"):
        dishes(kitchen, soups='Dish("borscht", ("beetroot-soup",))').get("beetroot-sup")


def test_a_key_declared_twice_is_refused(kitchen: Path) -> None:
    with pytest.raises(RegistryError, match=r"dish 'ramen' is declared twice, the second time in kitchen\.soups"):
        dishes(kitchen, mains='Dish("ramen")', soups='Dish("ramen")').names()


@pytest.mark.parametrize("alias", ["ramen", "noodles"])
def test_an_alias_that_is_taken_is_refused(kitchen: Path, alias: str) -> None:
    taken = dishes(kitchen, mains='Dish("ramen", ("noodles",))', soups=f'Dish("udon", ("{alias}",))')
    with pytest.raises(
        RegistryError, match=f"dish 'udon' has the alias '{alias}', which is already a name of dish 'ramen'"
    ):
        taken.get("udon")


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package ``bistro`` whose entry point names its module ``bistro_dishes``, which is written."""
    site = tmp_path / "site"
    info = site / "bistro-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bistro\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bend_hf.plugins]\nbistro = bistro_dishes\n")
    module = site / "bistro_dishes.py"
    module.write_text(f'{_HEAD}DISHES = (Dish("quiche", ("tart",)), Dish("crepe"))\n')
    monkeypatch.syspath_prepend(site)
    yield module
    sys.modules.pop("bistro_dishes", None)


def test_a_plugin_adds_its_declarations(kitchen: Path, plugin: Path) -> None:
    found = dishes(kitchen, soups='Dish("ramen")')
    assert found.names() == ["crepe", "quiche", "ramen"]
    assert found.get("tart").key == "quiche"


def test_a_plugin_without_the_attribute_adds_nothing(kitchen: Path, plugin: Path) -> None:
    plugin.write_text("DRINKS = ()\n")
    assert dishes(kitchen, soups='Dish("ramen")').names() == ["ramen"]


def test_a_plugin_that_fails_is_named(kitchen: Path, plugin: Path) -> None:
    plugin.write_text("1 / 0\n")
    expected = r"plug-in 'bistro' \(bistro_dishes\) of bistro cannot be imported \(ZeroDivisionError: .*\); correct or"
    with pytest.raises(RegistryError, match=expected):
        dishes(kitchen).names()


def test_a_plugin_that_names_no_module_is_refused(kitchen: Path, plugin: Path) -> None:
    info = plugin.parent / "bistro-1.0.dist-info" / "entry_points.txt"
    info.write_text("[bend_hf.plugins]\nbistro = bistro_dishes:DISHES\n")
    with pytest.raises(RegistryError, match="names bistro_dishes:DISHES, which is not a module"):
        dishes(kitchen).names()


def test_a_plugin_cannot_take_a_key_of_the_package(kitchen: Path, plugin: Path) -> None:
    with pytest.raises(RegistryError, match=r"'crepe' is declared twice, the second time in bistro_dishes"):
        dishes(kitchen, mains='Dish("crepe")').names()


def test_a_file_gives_its_only_declaration(kitchen: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(f'{_HEAD}DISHES = (Dish("omelette"),)\n')
    found = dishes(kitchen, soups='Dish("ramen")')
    assert found.get(str(mine)).key == "omelette"
    assert found.get(str(mine)) is found.get(f"{mine}:omelette")
    assert found.names() == ["ramen"]


def test_a_file_that_changed_is_run_again(kitchen: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    found = dishes(kitchen)
    for key in ("omelette", "frittata"):
        mine.write_text(f'{_HEAD}DISHES = (Dish("{key}"),)\n')
        assert found.get(str(mine)).key == key


def test_a_file_of_several_declarations_needs_a_key(kitchen: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(f'{_HEAD}DISHES = (Dish("omelette"), Dish("frittata"))\n')
    found = dishes(kitchen)
    assert found.get(f"{mine}:omelette").key == "omelette"
    with pytest.raises(RegistryError, match=r"2 declarations in DISHES: frittata, omelette; choose one, for example"):
        found.get(str(mine))
    with pytest.raises(RegistryError, match=r"holds no dish 'omelete'; did you mean 'omelette'\?"):
        found.get(f"{mine}:omelete")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, r"there is no file .*mine\.py; check the path"),
        ("", r"mine\.py declares no dish; expected a tuple named DISHES"),
        ("1 / 0", r"mine\.py failed when it was run \(ZeroDivisionError: .*\); correct it"),
    ],
)
def test_a_file_without_a_declaration_is_refused(
    kitchen: Path, tmp_path: Path, text: str | None, expected: str
) -> None:
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    with pytest.raises(RegistryError, match=expected):
        dishes(kitchen).get(str(tmp_path / "mine.py"))


def test_an_added_declaration_is_found(kitchen: Path) -> None:
    found = dishes(kitchen, soups='Dish("ramen", ("noodles",))')
    ramen = found.get("ramen")
    added = found.add(type(ramen)("udon", ("thick",)))
    assert found.get("thick") is found.get("udon") is added
    assert found.add(added) is added
    for taken in (type(ramen)("noodles"), type(ramen)("soba", ("ramen",)), type(ramen)("ramen", ("new",))):
        with pytest.raises(RegistryError, match=r"cannot be added: .* is already a name of dish 'ramen'"):
            found.add(taken)
    assert found.names() == ["ramen", "udon"]


def test_the_log_says_once_that_the_code_of_a_file_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "my_model.py"
    path.write_text("ANSWER = 42\n")
    with caplog.at_level("INFO", logger="bend_hf.user_code"):
        assert load_file(path).ANSWER == load_file(path).ANSWER == 42
    assert caplog.messages == [f"running the code of {path.resolve()}"]


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("[1]", "DISHES holds 1, which is not a declaration of a dish; expected an object with a key"),
        ("1", "DISHES is of type int; expected a tuple of declarations"),
    ],
)
def test_a_file_of_other_things_than_declarations_is_refused(
    kitchen: Path, tmp_path: Path, declared: str, said: str
) -> None:
    (tmp_path / "mine.py").write_text(f"DISHES = {declared}\n")
    with pytest.raises(RegistryError, match=f"mine.py: {said}"):
        dishes(kitchen).get(str(tmp_path / "mine.py"))
