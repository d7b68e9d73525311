"""A digest of the code that a result depends on, so that no cache answers for code that has changed."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any


@functools.cache
def code_digest(module: str) -> str:
    """Return a digest of the code of a module and of all that it imports of its own package and of this one.

    Imports count directly or not and wherever they stand, within a function too, but not under ``if TYPE_CHECKING``.
    Comments, docstrings and layout do not count. Files are read when they are first asked for, once in a process.

    Parameters
    ----------
    module : str
        Full name, as ``function.__module__`` gives it.

    Returns
    -------
    str of 16 hexadecimal digits
    """
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(reached_modules(module)):
        digest.update(f"{name}\n{ast.dump(_code(name))}\n".encode())
    return digest.hexdigest()


def reached_modules(module: str) -> set[str]:
    """Return the names of a module and of all that it imports of its own package and of this one."""
    counted = {name.partition(".")[0] for name in (module, __name__)}

    def counts(name: str) -> bool:
        return name.partition(".")[0] in counted and _spec(name) is not None

    reached: set[str] = set()
    found = {module}
    while found:
        reached |= found
        imported = {pair for one in found for pair in _imported(one)}
        named = {
            name for source, name in imported if name and counts(source) for name in _homes(source, name)
        }
        found = {one for one in named | {source for source, _ in imported} if counts(one)} - reached
    return reached


def _imported(module: str) -> Iterator[tuple[str, str]]:
    """Return what a module imports: ``(a, "")`` of ``import a`` and ``(a, b)`` of ``from a import b``."""
    spec = _spec(module)
    for node in ast.walk(_code(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            source = importlib.util.resolve_name(source, spec.parent if spec is not None else None)
            yield from ((source, alias.name) for alias in node.names)


def _homes(package: str, name: str) -> Iterator[str]:
    """Return which modules a name in a package may stand for or be defined in, if it is loaded on first use."""
    yield f"{package}.{name}"
    if any(getattr(node, "name", None) == "__getattr__" for node in ast.iter_child_nodes(_code(package))):
        yield str(getattr(getattr(importlib.import_module(package), name, None), "__module__", ""))


@functools.cache
def _code(module: str) -> ast.AST:
    """Return what a module does: its code without docstrings and imports for types; nothing without a source."""
    spec = _spec(module)
    path = Path(spec.origin or "") if spec is not None else Path()
    return _Essence().visit(ast.parse(path.read_bytes() if path.suffix == ".py" else b""))


class _Essence(ast.NodeTransformer):
    """Takes out of code what no result depends on."""

    def visit_If(self, node: ast.If) -> Any:
        is_for_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return node.orelse if is_for_types else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> Any:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)


def _spec(module: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):  # of "a.b" where a is no package; of a script
        return None
