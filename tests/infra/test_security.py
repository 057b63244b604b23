"""What strangers' files may run: nothing. Unsafe ways of reading are not in the code at all."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mir", "jobs", "sweeps", "orchestrator")
# Modules whose loaders run what a file says.
LOADERS = {
    "pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle",
}  # fmt: skip
CALLS = {
    "eval", "exec", "__import__", "os.system", "os.popen", "tempfile.mktemp",
    "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load",
    "yaml.full_load_all", "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader",
}  # fmt: skip
# A call whose name ends so must pass this.
REQUIRED = {
    "torch.load": ("weights_only", True),
    ".extractall": ("filter", "data"),
    ".extract": ("filter", "data"),
}
# No call may pass this.
REFUSED = {"trust_remote_code": True, "shell": True, "allow_pickle": True, "weights_only": False}


def name_of(node: ast.expr) -> str:
    """'torch.load' of `torch.load`; '.load' where what comes before is no plain name."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{name_of(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def is_value(node: ast.expr | None, value: object) -> bool:
    return (
        isinstance(node, ast.Constant) and type(node.value) is type(value) and node.value == value
    )


def faults(source: str) -> list[str]:
    """What is unsafe in a piece of code, by line."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = []
        found += [f"{line}: imports {n}" for n in names if n.split(".")[0] in LOADERS]
        # Under another name a call would not be found.
        found += [f"{line}: imports {n} by name" for n in names if n in CALLS or n in REQUIRED]
        if isinstance(node, ast.Attribute | ast.Name) and name_of(node) in CALLS:
            found.append(f"{line}: uses {name_of(node)}")
        if isinstance(node, ast.ClassDef):
            bases = {name_of(base) for base in node.bases}
            found += [f"{line}: derives from {base}" for base in sorted(bases & CALLS)]
        if isinstance(node, ast.Call):
            found += [f"{line}: {fault}" for fault in faults_of_call(node)]
    return found


def faults_of_call(call: ast.Call) -> list[str]:
    name = name_of(call.func)
    given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    found = [
        f"calls {name} without {option}={value!r}"
        for ending, (option, value) in REQUIRED.items()
        if name.endswith(ending) and not is_value(given.get(option), value)
    ]
    return found + [
        f"calls {name} with {option}={value}"
        for option, value in REFUSED.items()
        if is_value(given.get(option), value)
    ]


def test_nothing_that_users_give_is_run():
    found = {
        f"{path.relative_to(ROOT)}:{fault}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for fault in faults(path.read_text(encoding="utf-8"))
    }
    assert found == set()


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from cloudpickle import loads",
        "def f():\n    import dill.session",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "from torch import load\nload('x')",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "import yaml\nyaml.full_load(text)",
        "import yaml\nclass L(yaml.Loader): pass",
        "Model.from_pretrained(name, trust_remote_code=True)",
        "subprocess.run('ls', shell=True)",
        "numpy.load(path, allow_pickle=True)",
        "archive.extractall(folder)",
        "open_tar().extract(member)",
        "eval(text)",
        "os.system(line)",
    ],
)
def test_each_unsafe_way_would_be_found(code: str):
    assert faults(code)


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load('x', map_location='cpu', weights_only=True)",
        "import yaml\nyaml.safe_load(text)\nclass L(yaml.SafeLoader): pass",
        "Model.from_pretrained(name, trust_remote_code=trust)",
        "archive.extractall(folder, filter='data')",
        "model.eval()",
    ],
)
def test_the_safe_ways_are_left_alone(code: str):
    assert faults(code) == []
