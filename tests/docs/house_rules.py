"""The house rules that no linter checks: each is a function from files to offences.

Rule: pure. Files are a mapping from a path (relative to the root, with `/`) to the file's text; an offence is one line
that names the file. `tests/docs/test_house_rules.py` runs each rule on the project, and on an offence planted for it.
"""

import ast
import functools
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Files = Mapping[str, str]
HouseRule = Callable[[Files], list[str]]

PRODUCT: Final = ("schemas", "broker", "device_agent", "control_plane")
LONGEST_FILE: Final = 600
MOST_MODULES: Final = 15
SMALLEST_FAMILY: Final = 3
MOST_IGNORES: Final = 10

_DRAWERS: Final = frozenset({"utils", "util", "helpers", "misc"})
_HIERARCHY_NAME: Final = re.compile(r"^Base(?:[A-Z]|$)|(?:Manager|Impl)$")
# Written in halves, or this file would offend against itself.
_UNFINISHED: Final = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME)\b")
_ADAPTERS: Final = "/adapters/"
_OPENAPI: Final = "control_plane/api/models.py"
"""REST's models are named as in the OpenAPI document, and used as `models.Upload`."""


def modules_without_docstring(files: Files) -> list[str]:
    """Every module has a docstring."""
    return [path for path, text in _python(files) if ast.get_docstring(parse(text)) is None]


HISTORY: Final = "control_plane/adapters/migrations/versions"


def long_files(files: Files) -> list[str]:
    """No Python file is longer than `LONGEST_FILE` lines."""
    lengths = {path: len(text.splitlines()) for path, text in _python(files)}
    return [f"{path}: {length} lines" for path, length in lengths.items() if length > LONGEST_FILE]


def crowded_folders(files: Files) -> list[str]:
    """No folder of the product holds more than `MOST_MODULES` modules; the history of the database only grows."""
    counts = {folder: len(stems) for folder, stems in _folders(files) if folder != HISTORY}
    return [f"{folder}: {count} modules" for folder, count in counts.items() if count > MOST_MODULES]


def families_without_folder(files: Files) -> list[str]:
    """Modules of the product that share the part before the first `_` are a folder, once there are three."""
    offences = []
    for folder, stems in _folders(files):
        families = defaultdict(list)
        for stem in stems:
            families[stem.strip("_").partition("_")[0]].append(stem)
        offences += [
            f"{folder}: {', '.join(sorted(family))}" for family in families.values() if len(family) >= SMALLEST_FAMILY
        ]
    return offences


def modules_for_anything(files: Files) -> list[str]:
    """No module is named after nothing in particular."""
    return [path for path, _ in _python(files) if _stem(path) in _DRAWERS]


def classes_named_by_hierarchy(files: Files) -> list[str]:
    """No class is named after its place in a hierarchy of classes."""
    return [f"{path}: {node.name}" for path, node in _classes(files) if _HIERARCHY_NAME.search(node.name)]


def shared_class_names(files: Files) -> list[str]:
    """No two public classes of one top-level package of the product have one name."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, text in _product(files):
        if path != _OPENAPI:
            for node in parse(text).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[path.partition("/")[0], node.name].append(path)
    return [f"{name}: {', '.join(paths)}" for (_, name), paths in places.items() if len(paths) > 1]


def repeated_docstrings(files: Files) -> list[str]:
    """An adapter's method that implements a Protocol does not repeat the Protocol's docstring."""
    promised: dict[tuple[str, str], set[str]] = defaultdict(set)
    implementing: list[tuple[str, ast.ClassDef]] = []
    for path, node in _classes(dict(_product(files))):
        if any(_name(base) == "Protocol" for base in node.bases):
            for method, docstring in _documented_methods(node):
                promised[path.partition("/")[0], method].add(docstring)
        elif _ADAPTERS in path:
            implementing.append((path, node))
    return [
        f"{path}: {node.name}.{method}"
        for path, node in implementing
        for method, docstring in _documented_methods(node)
        if docstring in promised[path.partition("/")[0], method]
    ]


def work_left_for_later(files: Files) -> list[str]:
    """No file, Python or not, holds a note about unfinished work."""
    return [
        f"{path}:{number}: {line.strip()}"
        for path, text in files.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if _UNFINISHED.search(line)
    ]


def tests_without_assertion(files: Files) -> list[str]:
    """Every test asserts something."""
    return [
        f"{path}: {node.name}"
        for path, text in _python(files)
        if _stem(path).startswith("test_")
        for node in ast.walk(parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_") and not _asserts(node)
    ]


def lost_cancellations(files: Files) -> list[str]:
    """A cancellation reaches the end of its task: the task that waits for it may otherwise wait for ever.

    `asyncio.wait_for` of Python 3.11 drops one that arrives together with a result; `asyncio.timeout` does not.
    """
    offences = []
    for path, text in _python(files):
        if path.partition("/")[0] in PRODUCT:
            lost = (node for node in ast.walk(parse(text)) if _loses_cancellation(node))
            offences += [f"{path}:{getattr(node, 'lineno', 0)}" for node in lost]
    return offences


def _loses_cancellation(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr="wait_for", value=ast.Name(id="asyncio")):
            return True
        case ast.ExceptHandler(type=caught, body=body):
            caught_all = caught is None or re.search(r"CancelledError|BaseException", ast.unparse(caught))
            return bool(caught_all) and not any(isinstance(one, ast.Raise) for line in body for one in ast.walk(line))
        case ast.Call(func=ast.Name(id="suppress")):
            return re.search(r"CancelledError|BaseException", ast.unparse(node)) is not None
        case _:
            return False


RULES: Final[tuple[HouseRule, ...]] = (
    modules_without_docstring,
    long_files,
    crowded_folders,
    families_without_folder,
    modules_for_anything,
    classes_named_by_hierarchy,
    shared_class_names,
    repeated_docstrings,
    work_left_for_later,
    tests_without_assertion,
    lost_cancellations,
)


def unexplained_ignores(ignores: list[str], pyproject: str) -> list[str]:
    """Ruff's global ignores are at most `MOST_IGNORES`, and a comment behind each gives the reason."""
    offences = [code for code in ignores if not re.search(rf'^  "{code}", +# \w', pyproject, re.MULTILINE)]
    return [*offences, *ignores[MOST_IGNORES:]]


def unmet_requirements(requirements: list[Requirement], lock: str) -> list[str]:
    """Requirements that the text of a lock file does not satisfy."""
    pins: list[tuple[str, str]] = re.findall(r"^([\w.-]+)(?:\[.*\])?==([^ ;\\]+)", lock, re.MULTILINE)
    versions = {canonicalize_name(name): version for name, version in pins}
    return [
        str(requirement)
        for requirement in requirements
        if not requirement.specifier.contains(versions.get(canonicalize_name(requirement.name), "0"))
    ]


@functools.cache
def parse(text: str) -> ast.Module:
    """The syntax tree of a Python file; the same tree for the same text."""
    return ast.parse(text)


def _python(files: Files) -> Iterator[tuple[str, str]]:
    return ((path, text) for path, text in files.items() if path.endswith(".py"))


def _product(files: Files) -> Iterator[tuple[str, str]]:
    return ((path, text) for path, text in _python(files) if path.partition("/")[0] in PRODUCT)


def _folders(files: Files) -> Iterator[tuple[str, list[str]]]:
    """Each folder of the product with the names of its modules."""
    folders: dict[str, list[str]] = defaultdict(list)
    for path, _ in _product(files):
        if _stem(path) != "__init__":
            folders[posixpath.dirname(path)].append(_stem(path))
    yield from folders.items()


def _classes(files: Files) -> Iterator[tuple[str, ast.ClassDef]]:
    for path, text in _python(files):
        yield from ((path, node) for node in ast.walk(parse(text)) if isinstance(node, ast.ClassDef))


def _documented_methods(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for method in node.body:
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(method)
            if docstring is not None:
                yield method.name, docstring


def _asserts(function: ast.AST) -> bool:
    """Whether the function holds an assert, `pytest.raises` or its like, or a call of a check by its name."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = _name(node.func)
            if called in {"raises", "warns", "fail"} or called.startswith(("assert_", "check_", "to_be_", "to_have_")):
                return True
    return False


def _name(node: ast.expr) -> str:
    """The last part of a name such as `typing.Protocol`, or of `Protocol[T]`."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Subscript(value=value):
            return _name(value)
        case _:
            return ""


def _stem(path: str) -> str:
    return posixpath.basename(path).removesuffix(".py")
