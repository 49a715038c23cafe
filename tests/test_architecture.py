"""The map of the package, held: imports point one way, and heavy things have one door each."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tuner"

RANKS = {
    0: {"errors", "clock", "protos", "words"},
    1: {
        "batching",
        "builtin",
        "scenario",
        "records",
        "model",
        "slo",
        "http2",
        "ladder",
        "environment",
        "served",
        "deploy",
    },
    2: {"server", "load", "measure", "simulate"},
    3: {"trial"},
    4: {"search", "store", "formats"},
    5: {"report", "wiring"},
    6: {"doctor"},
    7: {"cli", "commands", "starter", "__main__"},
}
RANK = {area: rank for rank, areas in RANKS.items() for area in areas}
APART = RANKS[2]
"""Areas of rank 2 know nothing of each other; in other ranks neighbours may import neighbours."""

DOORS = {
    "optuna": ("search/",),
    "grpc": (
        "load/credentials.py",
        "load/grpcio_engine.py",
        "load/probe.py",
        "server/embedded/",
    ),
    "tensorflow": ("protos.py", "server/embedded/", "builtin.py"),
    "docker": ("server/",),
    "pynvml": ("measure/gpu.py",),
    "matplotlib": ("report/",),
    "jinja2": ("report/",),
    "pandas": ("report/",),
    "click": ("cli.py", "commands/"),
    "rich": ("cli.py", "commands/"),
    "numba": ("simulate/compiled.py",),
    "socket": ("http2/", "load/", "server/"),
    "subprocess": ("server/", "load/", "builtin.py"),
}
"""Who may import what lies outside; others must come to them."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def place(path):
    return path.relative_to(PACKAGE).as_posix()


def area(path):
    return place(path).split("/")[0].removesuffix(".py")


def imports(path):
    """Yield every name a file imports, dotted, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place(path)}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inner_imports(path):
    for name in imports(path):
        if name.startswith("tuner.") and name != "tuner.__version__":
            yield name.split(".")[1]


def modules(imported, names):
    """The module that an imported name is, or else lies in."""
    outer = imported.rpartition(".")[0]
    found = (imported, f"{imported}.__init__", outer, f"{outer}.__init__")
    return [name for name in found if name in names][:1]


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=place)


def test_every_module_has_a_rank():
    areas = {area(path) for path in MODULES} - {"__init__"}
    assert areas <= set(RANK), f"give a rank to {sorted(areas - set(RANK))}"


@named(MODULES)
def test_imports_point_one_way(path):
    own = area(path)
    for other in inner_imports(path):
        assert RANK[other] <= RANK.get(own, 0), f"{own} must not import {other}"
        if own in APART and other != own:
            assert other not in APART, f"{own} and {other} must not know each other"


@named(MODULES)
def test_what_lies_outside_has_its_door(path):
    for name in imports(path):
        doors = DOORS.get(name.split(".")[0])
        if doors is None or (name.startswith("tensorflow.core.") and "_pb2" in name):
            continue
        assert place(path).startswith(doors), f"{name} belongs to {', '.join(doors)}"


@named([path for path in MODULES if area(path) in {"measure", "records", "slo", "ladder"}])
def test_measuring_knows_nothing_of_the_wire(path):
    assert not {name.split(".")[0] for name in imports(path)} & {"grpc", "tensorflow_serving"}


def test_the_import_graph_has_no_cycle():
    """Between files too, so that each can be read after those it builds on."""
    names = {
        f"tuner.{place(path).removesuffix('.py').replace('/', '.')}": path for path in MODULES
    }
    graph = {
        name: {target for imported in imports(path) for target in modules(imported, names)}
        - {name}
        for name, path in names.items()
    }
    done = set()
    while ready := {name for name, needs in graph.items() if name not in done and needs <= done}:
        done |= ready
    assert done == set(graph), f"cycle among {sorted(set(graph) - done)}"
