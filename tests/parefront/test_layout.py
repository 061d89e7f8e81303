"""The tree, the packages and the layers are what the project says they are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import parefront as pf

ROOT = Path(__file__).parents[2]
PARTS = ("search", "spaces", "objectives", "dashboards")
BELOW = {
    "spaces": {"errors", "spaces"},
    "objectives": {"errors", "objectives"},
    "search": {"errors", "spaces", "objectives", "search"},
    "dashboards": {"errors", "spaces", "objectives", "search", "dashboards"},
}


def test_every_folder_with_code_is_a_package_that_ships() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {"parefront"}
    for part in PARTS:
        folders = {path.parent for path in (ROOT / part).rglob("*.py")}
        found |= {f"parefront.{'.'.join(folder.relative_to(ROOT).parts)}" for folder in folders}
    assert set(setup["packages"]) == found
    assert setup["package-dir"] == {"parefront": "parefront"} | {
        f"parefront.{part}": part for part in PARTS
    }


@pytest.mark.parametrize("part", PARTS)
def test_the_links_for_type_checkers_are_there(part: str) -> None:
    link = ROOT / "parefront" / part
    assert link.is_symlink()
    assert link.readlink() == Path("..") / part


@pytest.mark.parametrize("part", PARTS)
def test_each_layer_knows_only_those_below(part: str) -> None:
    for path in (ROOT / part).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                if name.startswith("parefront."):
                    assert name.split(".")[1] in BELOW[part], f"{path}: {name}"


def test_devices_run_artifacts_without_torch() -> None:
    program = (
        "import sys, parefront, parefront.objectives.targets.worker\n"
        "import parefront.objectives.targets.catalog\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_public_name_is_there_and_no_other() -> None:
    for name in pf.__all__:
        assert getattr(pf, name) is not None
    assert dir(pf) == sorted(pf.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Tsk'"):
        pf.Tsk  # noqa: B018
    with pytest.raises(ImportError):
        exec("from parefront import nothing_of_this_name")  # noqa: S102


def test_type_checkers_see_the_public_names() -> None:
    tree = ast.parse((ROOT / "parefront" / "__init__.py").read_text())
    guarded = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    names = {
        alias.asname or alias.name
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert names == set(pf.__all__)


def test_the_readme_names_commands_and_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text() + "".join(
        path.read_text() for path in (ROOT / "docs").rglob("*.md")
    )
    shown = subprocess.run(
        [sys.executable, "-m", "parefront", "--help"], capture_output=True, text=True, check=True
    ).stdout
    commands = set(re.findall(r"^\s*(?:.*`)?parefront ([a-z]+)", text, re.MULTILINE))
    assert {"launch", "export", "verify", "front"} <= commands
    for name in commands - {"is", "finds", "reads"}:
        assert name in shown, name
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", text)) <= targets
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / link).exists(), link


def test_every_error_is_in_the_tree_at_the_top_of_its_file() -> None:
    errors = pf.errors
    drawn = set(re.findall(r"\b\w+Error\b", errors.__doc__ or ""))
    defined = {name for name in vars(errors) if name.endswith("Error")}
    assert drawn == defined
    for name in defined:
        assert issubclass(getattr(errors, name), errors.ParefrontError)


def locked(name: str) -> set[str]:
    """Names of the packages in a lock."""
    lines = (ROOT / name).read_text().lower().splitlines()
    return {line.split("==")[0].replace("_", "-") for line in lines if "==" in line}


def named(lines: list[str]) -> set[str]:
    """Names of packages as `pyproject.toml` lists them."""
    return {re.split(r"[<>=\[]", line)[0].lower() for line in lines}


def test_what_only_a_search_has_a_use_for_brings_the_search() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    device = {"agent", "executorch", "litert", "openvino"}  # which run artifacts without torch
    for name in extras.keys() - device - {"search", "dev"}:
        assert "parefront[search]" in extras[name], name
    for name in device:
        assert "parefront[search]" not in extras[name], name


def test_the_locks_hold_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["search"] + extras["agent"] + extras["dev"]
    core, runtimes = locked("requirements.lock"), locked("requirements-runtimes.lock")
    assert named(wanted) <= core
    assert named(
        extras["openvino"] + extras["executorch"] + extras["litert"] + extras["s3"]
    ) <= runtimes | {"parefront"}
    assert not core & runtimes
    assert "torch==2.13.0" in (ROOT / "requirements.lock").read_text().splitlines()
