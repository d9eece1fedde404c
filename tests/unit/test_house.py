"""The house rules that a reader relies on and no linter knows."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "adaptive_split"
FILES = [
    path.relative_to(ROOT).as_posix()
    for path in sorted(PACKAGE.rglob("*.py"))
    if not path.stem.endswith(("_pb2", "_pb2_grpc"))
]
INITS = [file for file in FILES if file.endswith("/__init__.py")]
# envs registers the environments; cli holds the command's entry point.
INITS_WITH_CODE = {"adaptive_split/envs/__init__.py", "adaptive_split/cli/__init__.py"}


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def is_version(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"


@pytest.mark.parametrize("file", sorted(set(INITS) - INITS_WITH_CODE))
def test_an_init_holds_no_code(file):
    nodes = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    code = [ast.unparse(node) for node in nodes if not (is_docstring(node) or is_version(node))]

    assert code == []


@pytest.mark.parametrize("door", ["envs", "agents", "runtime"])
def test_a_door_is_a_link_to_its_home(door):
    link = ROOT / door

    assert link.is_symlink()
    assert link.readlink() == Path("adaptive_split") / door
    assert link.is_dir()


@pytest.mark.parametrize("file", FILES)
def test_a_file_fits_in_the_head(file):
    num_lines = len((ROOT / file).read_text(encoding="utf-8").splitlines())

    assert num_lines <= 400


UNSAFE_MODULES = {"pickle", "dill", "joblib", "cloudpickle", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "yaml.load"}


def unsafe(tree: ast.Module) -> list[str]:
    """What may run code from a file or a peer; naming pickle's errors may not."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name in UNSAFE_MODULES and a.asname]
        elif isinstance(node, ast.Attribute):
            if ast.unparse(node.value) in UNSAFE_MODULES and not node.attr.endswith("Error"):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and node.module in UNSAFE_MODULES:
            found += [a.name for a in node.names if not a.name.endswith("Error")]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            says = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if (
                name in UNSAFE_CALLS
                or says.get("allow_pickle", "False") != "False"
                or (name == "torch.load" and says.get("weights_only") != "True")
            ):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("file", FILES)
def test_nothing_that_is_read_can_run_code(file):
    assert unsafe(ast.parse((ROOT / file).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    [
        "pickle.loads(b)", "import dill as d", "from joblib import load", "eval(x)", "exec(x)",
        "np.load(f, allow_pickle=True)", "torch.load(f)", "yaml.load(f, Loader)",
    ],
)  # fmt: skip
def test_what_could_run_code_is_found(code):
    assert len(unsafe(ast.parse(code))) == 1
