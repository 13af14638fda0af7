"""Data flows right, imports point left: the packages' docstrings say the order, this checks it."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("bottlenecks", "retrain", "label_image")
DOORS = ("__init__", "__main__")  # not in the tables: the map itself, and python -m
PRINTING = {"cli", "console", "progress", "command"}
KNOWS_TENSORFLOW = {"bottlenecks.quiet_tensorflow", "bottlenecks.inception"}


def table(package: str) -> list[str]:
    """The modules in the table of ``package``'s docstring, in its order."""
    docstring = importlib.import_module(package).__doc__ or ""
    _, rows, _ = re.split(r"^=+  =+$", docstring, flags=re.MULTILINE)
    return re.findall(r"^(\w+)  ", rows, re.MULTILINE)


def modules(package: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / package).glob("*.py"))


ORDER = [f"{package}.{name}" for package in PACKAGES for name in table(package)]
ALL = [f"{package}.{name}" for package in PACKAGES for name in modules(package)]
INNER = [module for module in ALL if module.split(".")[1] not in DOORS]


def tree(module: str) -> ast.Module:
    path = ROOT / Path(*module.split(".")).with_suffix(".py")
    return ast.parse(path.read_text("utf-8"))


def imported(node: ast.AST) -> Iterator[str]:
    """The modules that an import statement names, ``from package import module`` too."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute here"
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            yield full if full in ALL else str(node.module)


def imports(module: str) -> set[str]:
    """All that ``module`` imports, wherever in it."""
    return {name for node in ast.walk(tree(module)) for name in imported(node)}


def imports_at_module_level(module: str) -> set[str]:
    """What is imported when ``module`` is: all that is not within a function."""

    def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
        yield node
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                yield from outside_functions(child)

    return {name for node in outside_functions(tree(module)) for name in imported(node)}


def top(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_table_names_every_module_and_no_other(package: str) -> None:
    named = table(package)
    assert sorted(named) == [name for name in modules(package) if name not in DOORS]
    assert len(set(named)) == len(named)


@pytest.mark.parametrize("module", INNER)
def test_a_module_imports_only_from_those_before_it(module: str) -> None:
    own = {name for name in imports(module) if name.split(".")[0] in PACKAGES}
    assert own <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("package", PACKAGES)
def test_the_doors_lead_into_their_own_package(package: str) -> None:
    assert imports(f"{package}.__main__") == {f"{package}.cli"}
    own = {name for name in imports(f"{package}.__init__") if name.split(".")[0] in PACKAGES}
    assert own <= {f"{package}.{name}" for name in table(package)}


def test_label_image_imports_nothing_of_retrain_but_the_graph_s_names() -> None:
    found = set().union(*(imports(module) for module in ALL if module.startswith("label_image.")))
    assert {name for name in found if name.split(".")[0] == "retrain"} == {"retrain.graph_spec"}


@pytest.mark.parametrize("module", ALL)
def test_tensorflow_is_imported_late_and_in_few_places(module: str) -> None:
    heavy = {"tensorflow", "keras"}
    assert not heavy & top(imports_at_module_level(module))
    if module not in KNOWS_TENSORFLOW:
        assert not heavy & top(imports(module))


@pytest.mark.parametrize("module", ALL)
def test_scikit_learn_is_imported_late(module: str) -> None:
    assert "sklearn" not in top(imports_at_module_level(module))


@pytest.mark.parametrize("module", ALL)
def test_only_what_talks_to_the_user_prints(module: str) -> None:
    prints = any(
        isinstance(node, ast.Name) and node.id == "print" for node in ast.walk(tree(module))
    )
    assert not prints or module.split(".")[1] in PRINTING


@pytest.mark.parametrize("module", ALL)
def test_no_module_is_longer_than_a_reader_can_hold(module: str) -> None:
    path = ROOT / Path(*module.split(".")).with_suffix(".py")
    assert len(path.read_text("utf-8").splitlines()) <= 350


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_resolve_and_unknown_ones_do_not(package: str) -> None:
    door = importlib.import_module(package)
    for name in door.__all__:
        assert getattr(door, name).__name__ == name
    with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'nope'"):
        _ = door.nope


def test_the_checks_see_what_they_look_for() -> None:
    """The other tests would pass if the parsing found nothing."""
    assert "bottlenecks.errors" in imports("bottlenecks.cache")
    assert "bottlenecks.lock" in imports("bottlenecks.cache")  # from bottlenecks import lock
    assert "tensorflow" in imports("bottlenecks.quiet_tensorflow")
    assert "sklearn.metrics" in imports("retrain.evaluate")
    assert "numpy" in imports_at_module_level("retrain.head")
