"""A digest of the code that a result depends on, so that a cache forgets what changed code has computed."""

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
    """Return a digest, 16 hexadecimal digits, of the code of a module and of all `reached_modules`.

    Comments, docstrings and layout do not count. Files are read once in a process.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(reached_modules(module)):
        digest.update(f"{name}\n{ast.dump(_code(name))}\n".encode())
    return digest.hexdigest()


def reached_modules(module: str) -> set[str]:
    """Return the names of a module and of all that it imports from its own package and from this one.

    Indirect imports and those within functions count; those under ``if TYPE_CHECKING`` do not.
    """
    counted = {name.partition(".")[0] for name in (module, __name__)}

    def counts(name: str) -> bool:
        return name.partition(".")[0] in counted and _spec(name) is not None

    reached: set[str] = set()
    found = {module}
    while found:
        reached |= found
        imported = [pair for one in found for pair in _imported(one)]
        candidates = {source for source, _ in imported}
        for source, name in imported:
            if name and counts(source):
                candidates |= _homes(source, name)
        found = set(filter(counts, candidates)) - reached
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


def _homes(package: str, name: str) -> set[str]:
    """Return the modules that a name in a package may be, or may come from where the package has ``__getattr__``."""
    homes = {f"{package}.{name}"}
    if any(getattr(node, "name", None) == "__getattr__" for node in ast.iter_child_nodes(_code(package))):
        homes.add(str(getattr(getattr(importlib.import_module(package), name, None), "__module__", "")))
    return homes


@functools.cache
def _code(module: str) -> ast.AST:
    """Return the code of a module without docstrings and imports for types; empty if it has no source."""
    spec = _spec(module)
    path = Path(spec.origin or "") if spec is not None else Path()
    return _Essence().visit(ast.parse(path.read_bytes() if path.suffix == ".py" else b""))


class _Essence(ast.NodeTransformer):
    """Removes from code what no result depends on."""

    def visit_If(self, node: ast.If) -> Any:
        return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> Any:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)


def _spec(module: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):  # "a.b" where a is no package; a script
        return None
