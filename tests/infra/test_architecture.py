"""The floors, the size of the rooms, and how quickly the command answers."""

import ast
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("mir", "jobs", "sweeps", "orchestrator")
PLAIN_JOB_TYPES = {"jobs.spec", "jobs.events"}
ENGINES = {
    "ray": {"orchestrator/executors/ray_executor.py"},
    "mlflow": {"orchestrator/trackers/mlflow_tracker.py"},
    "deepspeed": {"jobs/engine/deepspeed_engine.py", "jobs/engine/state.py"},
}
FORBIDDEN = {
    "mir": {"ray", "mlflow", "optuna", "deepspeed", "transformers", "pydantic", "yaml"},
    "jobs": {"ray", "mlflow", "optuna", "yaml"},
    "sweeps": {"ray", "mlflow", "torch", "transformers", "deepspeed"},
    "orchestrator": set(),
}


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: Path, *, at_load: bool = False) -> set[str]:
    """Modules a file imports; at_load leaves out those in functions and those for type checks."""
    found: set[str] = set()

    def waits(node: ast.AST) -> bool:
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        return deferred or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                found.add(child.module)
                found.update(f"{child.module}.{alias.name}" for alias in child.names)
            elif not (at_load and waits(child)):
                found.update(by_name(child))
                visit(child)

    def by_name(node: ast.AST) -> set[str]:
        """The module of an `importlib.import_module("...")`."""
        if not (isinstance(node, ast.Call) and "import_module" in ast.dump(node.func)):
            return set()
        return {str(a.value) for a in node.args if isinstance(a, ast.Constant)}

    visit(ast.parse(path.read_text()))
    return found


def test_no_floor_imports_from_a_higher_one():
    climbing = [
        f"{name_of(path)} imports {module}"
        for floor, package in enumerate(FLOORS)
        for path in sources(package)
        for module in imports(path)
        if module.split(".")[0] in FLOORS[floor + 1 :]
    ]
    assert climbing == []


def test_sweeps_sees_only_the_plain_types_of_jobs():
    seen = {
        f"{name_of(path)} imports {module}"
        for path in sources("sweeps")
        for module in imports(path)
        if module.startswith("jobs.") and ".".join(module.split(".")[:2]) not in PLAIN_JOB_TYPES
    }
    assert seen == set()


@pytest.mark.parametrize("engine", ENGINES)
def test_each_engine_is_spoken_to_in_one_room(engine: str):
    users = {
        name_of(path)
        for path in sources(*FLOORS)
        if any(module.split(".")[0] == engine for module in imports(path))
    }
    assert users == ENGINES[engine]


@pytest.mark.parametrize("package", FLOORS)
def test_a_floor_touches_only_what_it_may(package: str):
    touched = {
        f"{name_of(path)} imports {module}"
        for path in sources(package)
        for module in imports(path)
        if module.split(".")[0] in FORBIDDEN[package]
    }
    assert touched == set()


def test_no_import_cycles():
    graph = {
        module_of(path): {m for m in imports(path, at_load=True) if m.split(".")[0] in FLOORS}
        for path in sources(*FLOORS)
    }
    edges = {name: {m for m in found if m in graph and m != name} for name, found in graph.items()}
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join((*trail, name))}"
        if name in done:
            return
        for following in sorted(edges[name]):
            walk(following, (*trail, name))
        done.add(name)

    for name in edges:
        walk(name, ())
    assert done == set(graph)


def test_files_and_functions_stay_readable():
    long_files, long_functions, sizes = [], [], []
    for path in sources(*FLOORS, "tests"):
        text = path.read_text()
        lines = text.count("\n")
        if path.parts[-2] != "tests" and not name_of(path).startswith("tests/"):
            sizes.append(lines)
        if lines > 400:
            long_files.append(f"{name_of(path)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno
                if length > 60:
                    long_functions.append(f"{name_of(path)}:{node.name}: {length} lines")
    assert long_files == []
    assert long_functions == []
    assert sorted(sizes)[len(sizes) // 2] <= 150


def test_package_inits_import_nothing_heavy():
    heavy = {"torch", "ray", "deepspeed", "mlflow", "transformers", "optuna"}
    loaded = {
        f"{name_of(path)}: {module}"
        for path in sources(*FLOORS)
        if path.name == "__init__.py"
        for module in imports(path, at_load=True)
        if module.split(".")[0] in heavy
    }
    assert loaded == set()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plan", "sweeps/recipes/quickstart.yaml"]], ids=["help", "plan"]
)
def test_the_command_answers_without_the_heavy_engines(arguments: list[str]):
    code = (
        "import sys; sys.argv = ['mirsweep', *sys.argv[1:]]\n"
        "from orchestrator.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'ray', 'deepspeed', 'mlflow', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_names_of_test_files_are_unique():
    names = sorted(path.name for path in sources("tests"))
    assert [a for a, b in pairwise(names) if a == b and a.startswith("test_")] == []
