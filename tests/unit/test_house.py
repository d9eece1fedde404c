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
