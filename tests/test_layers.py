"""The import graph: layers point one way, nothing is hidden inside functions, and JAX's internals have one door."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "twograd"
MODULES = {
    ".".join(("twograd", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
# What a layer may import, besides itself. The package's own __init__ loads its sub-modules on first use.
ALLOWED = {
    "_compat": set(),
    "errors": {"_compat"},
    "rules": {"_compat", "errors"},
    "_arguments": {"rules"},
    "_protocol": set(),
    "_table": set(),
    "_console": set(),
    "_files": set(),
    "_trees": set(),
    "deploy": {"_trees"},
    "pictures": {"_files"},
    "exit_codes": set(),
    "graph": {
        "_compat",
        "errors",
        "rules",
        "_arguments",
        "_protocol",
        "_table",
        "_files",
        "_trees",
        "deploy",
        "pictures",
    },
    "tape": {"_compat", "errors", "rules", "_arguments", "_files", "_table", "graph", "pictures"},
    "tape.nn": {"tape", "nn"},  # PyTorch's signatures over the pure functions: loaded when it is first used
    "_namespace": {"_protocol"},
    "numpy": {"_namespace", "_protocol"},
    "lax": {"_namespace", "_protocol"},
    "nn": {"_protocol", "numpy", "tape"},
    "optim": {"_compat", "tape"},
    "saving": {"_files"},
    "models": {"nn", "tape"},
    "data": {"tape"},
    "fronts": {"errors", "rules", "graph", "nn"},
    "compare": {
        *("_compat", "_console", "_table", "_arguments", "_files", "errors", "exit_codes"),
        *("rules", "graph", "tape", "numpy", "lax", "nn", "data", "pictures"),
    },
    "lore": {"_console", "errors", "exit_codes", "rules", "graph", "tape", "numpy", "lax", "fronts"},
    "cli": {"compare", "lore", "exit_codes"},
    "__main__": {"cli"},
}


def imports(path: Path, name: str) -> set[str]:
    """The modules of this package that the file imports at run time, at its top or anywhere within."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if "TYPE_CHECKING" not in ast.dump(node).split("body=")[0]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return {module for item in found if (module := known(item)) and module != name}


def known(name: str) -> str | None:
    """The longest prefix of ``name`` that is a module here."""
    while name.startswith("twograd"):
        if name in MODULES:
            return name
        name = name.rpartition(".")[0]
    return None


GRAPH = {name: imports(path, name) for name, path in MODULES.items()}


def layer(module: str) -> str:
    if module.startswith("twograd.tape.nn"):
        return "tape.nn"
    return module.split(".")[1] if "." in module else "twograd"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_layers_below_its_own(module):
    own = layer(module)
    above = {other for other in GRAPH[module] if layer(other) not in {own, "twograd", *ALLOWED.get(own, set())}}
    assert own == "twograd" or own in ALLOWED, f"{module}: say in ALLOWED where this layer stands"
    assert not above, f"{module} imports {sorted(above)}"


def test_imports_have_no_cycle():
    # A package's __init__ re-exports its modules, which Python resolves; what counts is modules among each other.
    edges = {
        name: {other for other in others if MODULES[other].name != "__init__.py"} for name, others in GRAPH.items()
    }
    done: set[str] = set()

    def visit(name, path):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in edges[name]:
                visit(other, [*path, name])
            done.add(name)

    for name in edges:
        visit(name, [])


def test_only_compat_reaches_into_jax():
    offenders = [
        name
        for name, path in MODULES.items()
        if "jax._src" in path.read_text(encoding="utf-8") and name != "twograd._compat"
    ]
    assert not offenders


def test_the_tape_and_the_graph_walk_back_alike():
    twins = [PACKAGE / "graph" / "transform.py", PACKAGE / "tape" / "backward.py"]
    for path in twins:
        names = {node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if hasattr(node, "name")}
        assert "backward_pass" in names, f"{path.name} has lost its walk"
