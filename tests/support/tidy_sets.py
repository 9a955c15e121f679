"""Find where a module walks over a set, whose order differs from process to process.

Sets are recognised by how they are written, called, annotated or assigned within the module: a
literal, a comprehension, ``set(...)``, a name or attribute declared as one, and what the operators
``| & - ^`` make of one. Asking a set for membership, its length, or ``sorted`` of it is fine.
"""

import ast
from collections.abc import Iterator

SET_TYPES = ("set", "frozenset", "Set", "MutableSet", "AbstractSet", "FrozenSet")
SET_METHODS = ("union", "intersection", "difference", "symmetric_difference", "copy")
DICT_VIEWS = ("keys", "items")
OPERATORS = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
# What turns the order of its argument into a result.
ORDER_KEEPING = ("list", "tuple", "iter", "enumerate", "zip", "map", "filter", "reversed", "next")
ORDER_KEEPING_METHODS = ("join", "extend", "fromkeys", "writelines")

Scope = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef


def iterated_sets(tree: ast.Module) -> list[int]:
    """Line numbers where the order of a set decides something."""
    attributes = _declared_attributes(tree)
    lines: list[int] = []
    scopes: list[Scope] = [tree]
    scopes += [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    scopes += [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
    module_names = _declared_names(tree)
    for scope in scopes:
        known = _Known(module_names | _declared_names(scope), attributes)
        for node in _within(scope):
            lines += [found.lineno for found in _walked_over(node) if known.is_set(found)]
            if _pops_from(node, known):
                lines.append(node.lineno)  # type: ignore[attr-defined]
    return sorted(dict.fromkeys(lines))


class _Known:
    """The names and attributes that hold sets, as far as one scope can tell."""

    def __init__(self, names: set[str], attributes: set[str]) -> None:
        self.names = names
        self.attributes = attributes

    def is_set(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Set | ast.SetComp):
            return True
        if isinstance(node, ast.Name):
            return node.id in self.names
        if isinstance(node, ast.Attribute):
            return node.attr in self.attributes
        if isinstance(node, ast.BinOp) and isinstance(node.op, OPERATORS):
            return any(self.is_set(side) or _is_view(side) for side in (node.left, node.right))
        if isinstance(node, ast.Call):
            return self._makes_set(node)
        return False

    def _makes_set(self, call: ast.Call) -> bool:
        if isinstance(call.func, ast.Name):
            return call.func.id in ("set", "frozenset")
        return (
            isinstance(call.func, ast.Attribute)
            and call.func.attr in SET_METHODS
            and self.is_set(call.func.value)
        )


def _within(scope: Scope) -> Iterator[ast.AST]:
    """Every node of a scope, without those of the functions inside it."""
    waiting: list[ast.AST] = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += ast.iter_child_nodes(node)


def _walked_over(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions whose order ``node`` makes use of."""
    if isinstance(node, ast.For | ast.AsyncFor):
        yield node.iter
    elif isinstance(node, ast.ListComp | ast.DictComp):
        # A set made of a set, and a generator given to sorted() or any(), have no order to lose.
        yield from (generator.iter for generator in node.generators)
    elif isinstance(node, ast.Starred):
        yield node.value
    elif isinstance(node, ast.Call):
        ordered = (isinstance(node.func, ast.Name) and node.func.id in ORDER_KEEPING) or (
            isinstance(node.func, ast.Attribute) and node.func.attr in ORDER_KEEPING_METHODS
        )
        for argument in node.args if ordered else []:
            yield argument
            if isinstance(argument, ast.GeneratorExp):
                yield from (generator.iter for generator in argument.generators)


def _pops_from(node: ast.AST, known: _Known) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "pop"
        and not node.args
        and known.is_set(node.func.value)
    )


def _declared_names(scope: Scope) -> set[str]:
    names: set[str] = set()
    if not isinstance(scope, ast.Module):
        arguments = scope.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if _is_set_type(argument.annotation):
                names.add(argument.arg)
    for node in _within(scope):
        names |= {target.id for target in _set_targets(node) if isinstance(target, ast.Name)}
    return names


def _declared_attributes(tree: ast.Module) -> set[str]:
    """Names of attributes declared as sets: ``self.x`` anywhere, or ``x`` in a class body."""
    names: set[str] = set()
    for node in ast.walk(tree):
        names |= {target.attr for target in _set_targets(node) if isinstance(target, ast.Attribute)}
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                names |= {
                    target.id for target in _set_targets(statement) if isinstance(target, ast.Name)
                }
    return names


def _set_targets(node: ast.AST) -> list[ast.expr]:
    """What ``node`` declares to be a set, by annotation or by the value it assigns."""
    if isinstance(node, ast.AnnAssign) and _is_set_type(node.annotation):
        return [node.target]
    if isinstance(node, ast.Assign) and _Known(set(), set()).is_set(node.value):
        return node.targets
    return []


def _is_set_type(annotation: ast.expr | None) -> bool:
    if isinstance(annotation, ast.Subscript):
        return _is_set_type(annotation.value)
    if isinstance(annotation, ast.BinOp):
        return _is_set_type(annotation.left) or _is_set_type(annotation.right)
    if isinstance(annotation, ast.Attribute):
        return annotation.attr in SET_TYPES
    return isinstance(annotation, ast.Name) and annotation.id in SET_TYPES


def _is_view(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in DICT_VIEWS
    )
