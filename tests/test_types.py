"""Every function and field of the package says its types, and arrays say their shapes."""

import ast
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest

import astra_jax

ROOT = Path(astra_jax.__path__[0])
MODULES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py"))
ARRAYS = ("Array", "ArrayLike", "ndarray", "NDArray")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def untyped(function: ast.FunctionDef | ast.AsyncFunctionDef, in_class: bool) -> list[str]:
    """Its parameters without a type, and "return"."""
    of = function.args
    positional = [*of.posonlyargs, *of.args]
    decorators = {getattr(item, "id", None) for item in function.decorator_list}
    if in_class and "staticmethod" not in decorators:
        positional = positional[1:]  # self or cls
    others = [item for item in (of.vararg, of.kwarg) if item is not None]
    missing = [a.arg for a in (*positional, *of.kwonlyargs, *others) if a.annotation is None]
    return missing + (["return"] if function.returns is None else [])


def bare_arrays(annotation: ast.AST) -> Iterator[str]:
    """Arrays in an annotation that stand in no jaxtyping brackets, as `np.ndarray`."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        yield from bare_arrays(ast.parse(annotation.value, mode="eval").body)
    elif isinstance(annotation, ast.Subscript) and is_shaped(annotation.value):
        return
    elif getattr(annotation, "id", getattr(annotation, "attr", None)) in ARRAYS:
        yield ast.unparse(annotation)
    else:
        for child in ast.iter_child_nodes(annotation):
            yield from bare_arrays(child)


def is_shaped(node: ast.AST) -> bool:
    kind = getattr(jaxtyping, getattr(node, "id", ""), None)
    return isinstance(kind, type) and issubclass(kind, jaxtyping.AbstractDtype)


def faults(tree: ast.AST, in_class: bool = False) -> Iterator[str]:
    """What is wrong in a module, one line each."""
    for node in ast.iter_child_nodes(tree):
        annotations: list[ast.AST | None] = []
        if isinstance(node, FUNCTIONS):
            yield from (f"line {node.lineno}: {name} untyped" for name in untyped(node, in_class))
            of = node.args
            everything = (*of.posonlyargs, *of.args, *of.kwonlyargs, of.vararg, of.kwarg)
            annotations = [a.annotation for a in everything if a is not None] + [node.returns]
        elif isinstance(node, ast.AnnAssign) and in_class:
            annotations = [node.annotation]
        for annotation in annotations:
            names = bare_arrays(annotation) if annotation is not None else ()
            yield from (f"line {node.lineno}: {name} without a shape" for name in names)
        yield from faults(node, isinstance(node, ast.ClassDef))


@pytest.mark.parametrize("name", MODULES)
def test_functions_and_fields_say_their_types_and_shapes(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    assert list(faults(tree)) == []


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("def f(x) -> None: ...", "x untyped"),
        ("def f(*, x) -> None: ...", "x untyped"),
        ("def f(**more) -> None: ...", "more untyped"),
        ("def f(): ...", "return untyped"),
        ("class A:\n    def f(self, x) -> None: ...", "x untyped"),
        ("class A:\n    x: jax.Array | None", "jax.Array without a shape"),
        ("def f(x: np.ndarray) -> None: ...", "np.ndarray without a shape"),
        ("def f() -> tuple[int, list[Array]]: ...", "Array without a shape"),
        ("def f():\n    def g(x: 'Array') -> None: ...", "Array without a shape"),
    ],
)
def test_a_missing_type_or_shape_is_found(code: str, fault: str) -> None:
    assert fault in [found.split(": ")[1] for found in faults(ast.parse(code))]


def test_shapes_are_no_fault() -> None:
    code = 'def f(x: Float[Array, "a b"], key: Key[Array, ""], y: int) -> Bool[np.ndarray, ""]: ...'
    assert list(faults(ast.parse(code))) == []
