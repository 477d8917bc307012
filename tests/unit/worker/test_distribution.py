"""The worker goes into other people's images: nothing but the standard library, and old Pythons too."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import alakai_worker
import pytest

MODULES = sorted(Path(alakai_worker.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_module_is_python_3_9_and_imports_the_standard_library_only(module: Path) -> None:
    tree = ast.parse(module.read_text(), feature_version=(3, 9))
    assert isinstance(tree.body[1], ast.ImportFrom), "first the docstring, then the future import"
    assert tree.body[1].module == "__future__"
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    roots = {name.partition(".")[0] for name in names}
    assert roots <= sys.stdlib_module_names | {"alakai_worker"}


def test_the_types_are_shipped() -> None:
    assert (Path(alakai_worker.__file__).parent / "py.typed").exists()
