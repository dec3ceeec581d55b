"""The rooms' rules, read from the imports, and the sizes of functions and files.

Nothing here runs the code but the last test, which starts the command line without the heavy
packages.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# package -> the files (or folders) that may import it
DOORS = {
    "deepspeed": (
        "sdevid/train/engine.py",
        "sdevid/train/checkpointing/data_only.py",
        "sdevid/train/checkpointing/convert.py",
    ),
    "wandb": ("sdevid/train/record/metrics_sinks.py",),
    "webdataset": ("sdevid/data/shard_file.py", "sdevid/data/webdataset_reader.py"),
    "xformers": ("sdevid/models/attention.py",),
    "torchsde": ("sdevid/sde/torchsde_bridge.py",),
    "triton": ("kernels/",),
    "accelerate": ("sdevid/sample/",),
    "gradio": ("sdevid/report/studio.py",),
    "fsspec": ("sdevid/data/remote.py",),
    "transformers": ("sdevid/models/frozen_text.py",),
    "diffusers": ("sdevid/autoencoder/frozen.py",),
    "scenedetect": ("sdevid/data/video/shots.py",),
}

# Slow to import or not there on a bare CPU: no module but a package's own door may import them at
# its top, and nobody may import such a door at the top.
LAZY = (
    "gradio",
    "deepspeed",
    "wandb",
    "xformers",
    "torchsde",
    "triton",
    "transformers",
    "diffusers",
)

KNOWN_TO_SDE = ("sdevid.sde", "sdevid.types", "sdevid.transfer", "sdevid.errors", "sdevid_kernels")

# Longer than allowed, with the length it has. These may only shrink, and go once they fit.
LONG_FUNCTIONS: dict[str, int] = {}  # "path:name"
LONG_FILES: dict[str, int] = {}  # "path"
FILE_LINES = 400


@dataclass(frozen=True)
class Import:
    """One imported module: `name` is the module, `members` what `from` takes out of it."""

    name: str
    members: tuple[str, ...]
    line: int
    at_top: bool  # runs when the importing module is imported


def sources(*folders: str) -> list[str]:
    """Paths of the Python files under `folders`, from the repository's root."""
    result = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(str(path.relative_to(ROOT)) for path in result)


CODE = sources("sdevid", "kernels/sdevid_kernels", "tools")
MEASURED = sources("sdevid", "kernels", "tools", "tests", "benchmarks")


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), path)


def module_of(path: str) -> str:
    dotted = path.removeprefix("kernels/").removesuffix(".py").replace("/", ".")
    return dotted.removesuffix(".__init__")


MODULES = {module_of(path): path for path in CODE}


@cache
def imports(path: str) -> tuple[Import, ...]:
    """Every import in a file, but those under `if TYPE_CHECKING:`, which never run."""
    return tuple(_walk(tree(path), path, at_top=True))


def _walk(node: ast.AST, path: str, at_top: bool) -> Iterator[Import]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, (), node.lineno, at_top)
    elif isinstance(node, ast.ImportFrom):
        members = tuple(alias.name for alias in node.names)
        yield Import(_absolute(node, path), members, node.lineno, at_top)
    inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, path, at_top and not inside)


def _absolute(node: ast.ImportFrom, path: str) -> str:
    if not node.level:
        return node.module or ""
    package = module_of(path).split(".")
    if not path.endswith("__init__.py"):
        package.pop()
    package = package[: len(package) - (node.level - 1)]
    return ".".join([*package, node.module] if node.module else package)


def touched(imported: Import) -> Iterator[str]:
    """Our own modules that an import runs: the packages on its way, itself, its submodules."""
    parts = imported.name.split(".")
    names = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    names += [f"{imported.name}.{member}" for member in imported.members]
    return (name for name in names if name in MODULES)


def heavy(imported: Import) -> str:
    return imported.name.split(".")[0]


def reach(start: str, at_top: bool) -> dict[str, str]:
    """Files that importing `start` runs (`at_top`) or may ever run, each with who imports it."""
    seen, waiting = {start: "it"}, [start]
    while waiting:
        path = waiting.pop()
        for imported in imports(path):
            if at_top and not imported.at_top:
                continue
            for name in touched(imported):
                if MODULES[name] not in seen:
                    seen[MODULES[name]] = path
                    waiting.append(MODULES[name])
    return seen


@pytest.mark.parametrize("package", DOORS)
def test_each_heavy_package_has_one_door(package):
    doors = DOORS[package]
    strays = [
        f"{path}:{imported.line}"
        for path in CODE
        for imported in imports(path)
        if heavy(imported) == package and not path.startswith(doors)
    ]
    assert not strays, f"only {', '.join(doors)} may import {package}, not {', '.join(strays)}"


def test_importing_the_library_needs_no_heavy_package():
    doors = {path for package in LAZY for path in CODE if path.startswith(DOORS.get(package, ()))}
    faults = []
    for start in (path for path in CODE if path.startswith("sdevid/") and path not in doors):
        for path, importer in reach(start, at_top=True).items():
            for imported in imports(path):
                if imported.at_top and heavy(imported) in LAZY:
                    faults.append(f"{start} imports {imported.name} by {path} (from {importer})")
    assert not faults, "import these inside the function that needs them:\n" + "\n".join(faults)


def test_kernels_stand_on_torch_and_triton_alone():
    allowed = {"torch", "triton", "sdevid_kernels", "jaxtyping", *sys.stdlib_module_names}
    strays = [
        f"{path}:{imported.line} {imported.name}"
        for path in CODE
        if path.startswith("kernels/")
        for imported in imports(path)
        if heavy(imported) not in allowed
    ]
    assert not strays, f"jaxtyping is there for annotations; not allowed: {strays}"


def test_sde_knows_no_video():
    video = {"Video", "Frames", "Batch", "as_frames"}
    strays = [
        f"{path}:{imported.line} {imported.name}"
        for path in sources("sdevid/sde")
        for imported in imports(path)
        if (
            any(not name.startswith(KNOWN_TO_SDE) for name in touched(imported) if name != "sdevid")
            or (imported.name == "sdevid.types" and video & set(imported.members))
        )
    ]
    assert not strays, f"sde may import only {KNOWN_TO_SDE}, and of types only time: {strays}"


# room -> what it may never reach, by however many steps
CLOSED = [
    ("sdevid/sde/", ("sdevid/models/", "sdevid/data/", "sdevid/objectives/", "sdevid/train/")),
    ("sdevid/models/", ("sdevid/train/", "sdevid/objectives/", "sdevid/sample/")),
    ("sdevid/autoencoder/", ("sdevid/models/", "sdevid/objectives/", "sdevid/train/")),
    ("sdevid/objectives/", ("sdevid/train/",)),
    ("sdevid/data/", ("sdevid/train/", "sdevid/models/", "sdevid/objectives/")),
    ("sdevid/sample/", ("sdevid/train/", "sdevid/objectives/")),
    ("sdevid/evaluate/", ("sdevid/train/",)),
    ("sdevid/export.py", ("sdevid/train/",)),
    ("kernels/", ("sdevid/",)),
]
# The table of objectives, which settings are checked against: it imports nothing of ours.
DECLARED = ("sdevid/objectives/__init__.py", "sdevid/objectives/registry.py")


@pytest.mark.parametrize(("room", "closed"), CLOSED, ids=[room for room, _ in CLOSED])
def test_rooms_that_never_reach_others(room, closed):
    faults = [
        f"{start} reaches {path}, imported by {importer}"
        for start in CODE
        if start.startswith(room)
        for path, importer in reach(start, at_top=False).items()
        if path.startswith(closed) and path not in DECLARED
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", DECLARED)
def test_table_of_objectives_reaches_nothing_else(path):
    assert set(reach(path, at_top=False)) <= {*DECLARED, "sdevid/__init__.py"}


def test_nobody_compares_model_type():
    """What an objective can do is asked of its capabilities, never of its name."""
    compared = [
        f"{path}:{node.lineno}"
        for path in CODE
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Compare)
        and any(
            isinstance(part, ast.Attribute) and part.attr == "model_type"
            for part in (node.left, *node.comparators)
        )
    ]
    assert not compared, f"ask config.capabilities (objectives/registry.py) at {compared}"


def test_packages_are_complete_and_have_telling_names():
    assert not (ROOT / "kernels/__init__.py").exists(), (
        "a top-level package called kernels shadows Hugging Face's and breaks transformers"
    )
    nameless = ("utils", "util", "helpers", "misc", "common")
    assert not [path for path in MEASURED if Path(path).stem in nameless]
    bare = [
        str(folder.relative_to(ROOT))
        for top in ("sdevid", "kernels/sdevid_kernels")
        for folder in (ROOT / top).rglob("*")
        if folder.is_dir() and any(folder.glob("*.py")) and not (folder / "__init__.py").exists()
    ]
    assert not bare, f"without __init__.py these are not installed: {bare}"


def lengths(path: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path}:{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def _check(sizes: dict[str, int], allowed: dict[str, int]) -> None:
    new = {name: size for name, size in sizes.items() if name not in allowed}
    assert not new, f"too long: {new}"
    grown = {name: size for name, size in sizes.items() if size > allowed[name]}
    assert not grown, f"these may only shrink: {grown}"
    stale = {name: size for name, size in allowed.items() if sizes.get(name, 0) < size}
    assert not stale, f"shorter now; lower or remove their exceptions: {stale}"


def test_functions_are_short():
    long = {
        name: size
        for path in MEASURED
        for name, size in lengths(path)
        if size > (80 if path.startswith("kernels/") else 40)
    }
    _check(long, LONG_FUNCTIONS)


def test_files_are_short():
    sizes = {path: len((ROOT / path).read_text().splitlines()) for path in MEASURED}
    _check({path: size for path, size in sizes.items() if size > FILE_LINES}, LONG_FILES)


def test_help_starts_without_the_heavy_packages():
    without = "; ".join(f"sys.modules[{name!r}] = None" for name in LAZY)
    start = f"import sys, runpy; {without}; sys.argv = ['sdevid', '--help']"
    start += "; runpy.run_module('sdevid', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    for command in ("train", "sample", "evaluate", "report", "export"):
        assert command in done.stdout
