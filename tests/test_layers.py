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
KNOWS_TENSORFLOW = {"bottlenecks.network.tensorflow", "bottlenecks.network.inception"}
MOST_IN_A_ROOM = 12


def table(place: str) -> list[str]:
    """The names in the table of the docstring of a package or room, in its order."""
    docstring = importlib.import_module(place).__doc__ or ""
    _, rows, _ = re.split(r"^=+  =+$", docstring, flags=re.MULTILINE)
    return re.findall(r"^(\w+/?)  ", rows, re.MULTILINE)


def contents(place: str) -> list[str]:
    """What lies in the folder of a package or room: its modules, and its rooms with a slash."""
    folder = ROOT / Path(*place.split("."))
    names = {path.stem for path in folder.glob("*.py") if path.stem not in DOORS}
    return sorted(names | {f"{path.parent.name}/" for path in folder.glob("*/*.py")})


def in_order(place: str) -> Iterator[str]:
    """The modules of a package or room in the order of its table, those of a room in its place."""
    for name in table(place):
        if name.endswith("/"):
            yield from in_order(f"{place}.{name[:-1]}")
        else:
            yield f"{place}.{name}"


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


ALL = sorted(dotted(path) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ROOMS = [
    name.removesuffix(".__init__")
    for name in ALL
    if re.fullmatch(r"\w+(\.\w+){1,2}\.__init__", name)
]
PLACES = [*PACKAGES, *ROOMS]
ORDER = [module for package in PACKAGES for module in in_order(package)]
INNER = [module for module in ALL if module.split(".")[-1] not in DOORS]


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
            if alias.name == "__version__":  # of the package itself
                continue
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


@pytest.mark.parametrize("place", PLACES)
def test_the_table_names_every_module_and_no_other(place: str) -> None:
    assert sorted(table(place)) == contents(place)


def test_the_rooms_are_those_of_the_design() -> None:
    assert [
        "bottlenecks.cluster",
        *(f"bottlenecks.{room}" for room in ("network", "network.engines")),
        *(f"bottlenecks.{room}" for room in ("photos", "photos.places", "store")),
        *(
            f"retrain.{room}"
            for room in ("checks", "data", "engines", "export", "report", "training")
        ),
    ] == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_holds_no_more_than_a_reader_can_see(room: str) -> None:
    assert len(table(room)) <= MOST_IN_A_ROOM


@pytest.mark.parametrize("room", ROOMS)
def test_the_map_of_a_room_imports_nothing(room: str) -> None:
    assert not imports(f"{room}.__init__")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_what_is_before_it(room: str) -> None:
    package, _, name = room.rpartition(".")
    own = [module for module in ALL if module.startswith(f"{room}.")]
    found = set().union(*(imports(module) for module in own)) - set(own)
    names = table(package)
    for later in names[names.index(f"{name}/") :]:
        place = f"{package}.{later.removesuffix('/')}"
        assert not [x for x in found if x == place or x.startswith(f"{place}.")]


def test_the_tests_mirror_the_rooms() -> None:
    for room in ROOMS:
        folder = ROOT / "tests" / Path(*room.split("."))
        assert list(folder.glob("test_*.py")), f"{room} has no tests of its own"


@pytest.mark.parametrize("module", INNER)
def test_a_module_imports_only_from_those_before_it(module: str) -> None:
    own = {name for name in imports(module) if name.split(".")[0] in PACKAGES}
    assert own <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("package", PACKAGES)
def test_the_doors_lead_into_their_own_package(package: str) -> None:
    assert imports(f"{package}.__main__") == {f"{package}.cli"}
    own = {name for name in imports(f"{package}.__init__") if name.split(".")[0] in PACKAGES}
    assert own <= set(in_order(package))


def test_label_image_imports_nothing_of_retrain_but_what_runs_a_graph() -> None:
    """And what makes or reads the files of the network's own classifier, late (--imagenet)."""
    found = set().union(*(imports(module) for module in ALL if module.startswith("label_image.")))
    of_retrain = {name for name in found if name.split(".")[0] == "retrain"}
    runs = {f"retrain.engines.{name}" for name in ("engine", "formats", "settings")}
    assert of_retrain == runs | {"retrain.imagenet", "retrain.checks.reading"}
    assert "retrain.imagenet" not in imports_at_module_level("label_image.cli")


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
    assert not prints or module.split(".")[-1] in PRINTING


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_resolve_and_unknown_ones_do_not(package: str) -> None:
    door = importlib.import_module(package)
    for name in door.__all__:
        assert getattr(door, name).__name__ == name
    with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'nope'"):
        _ = door.nope


def test_the_checks_see_what_they_look_for() -> None:
    """The other tests would pass if the parsing found nothing."""
    assert "bottlenecks.errors" in imports("bottlenecks.store.cache")
    assert "bottlenecks.store.lock" in imports("bottlenecks.store.folder")  # from a room import it
    assert "tensorflow" in imports("bottlenecks.network.tensorflow")
    assert "scipy.optimize" in imports("retrain.training.fitting")
    assert "numpy" in imports_at_module_level("retrain.training.head")
