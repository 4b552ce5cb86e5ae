"""Rules for the tests themselves, checked on their source."""

import ast
import io
import pathlib
import re
import tokenize
from collections.abc import Iterator

import pytest

from tests import mutants

TESTS = pathlib.Path(__file__).resolve().parents[1]
KEYWORDS = {"abs", "atol", "decimal", "delta", "maxulp", "nulp", "rel", "rtol"}
DIRECTIVES = ("# fmt:", "# noqa", "# pragma", "# type:")
"""Comments that give no reason."""


def numbers(node: ast.AST) -> list[float]:
    """The number literals of an expression, but not those that only choose an element, and no zeros."""
    if isinstance(node, ast.Subscript):
        return numbers(node.value)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return [node.value] if node.value else []
    return [value for child in ast.iter_child_nodes(node) for value in numbers(child)]


def is_bound(node: ast.Compare) -> bool:
    """Whether a comparison is an inequality with a fraction, or of a distance."""
    if not any(isinstance(one, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for one in node.ops):
        return False
    called = {ast.unparse(one.func).rpartition(".")[2] for one in ast.walk(node) if isinstance(one, ast.Call)}
    return "abs" in called or any(value % 1 for value in numbers(node))


def tolerances(part: ast.AST) -> Iterator[ast.expr]:
    """Expressions that say how far two values may differ, or bound a value that is not known exactly."""
    for node in ast.walk(part):
        if isinstance(node, ast.Call):
            yield from (one.value for one in node.keywords if one.arg in KEYWORDS)
            yield from node.args[2:4] if ast.unparse(node.func).endswith("allclose") else ()
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            yield from (value for key, value in pairs if isinstance(key, ast.Constant) and key.value in KEYWORDS)
        elif isinstance(node, ast.Assert):
            yield from (one for one in ast.walk(node.test) if isinstance(one, ast.Compare) and is_bound(one))


def parts(tree: ast.AST) -> Iterator[tuple[ast.stmt | ast.expr, int]]:
    """Simple statements, and decorators and heads of the others; and the line where a docstring below would begin."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from ((one, 0) for one in node.decorator_list)
        elif isinstance(node, ast.stmt) and not hasattr(node, "body"):
            yield node, (node.end_lineno or 0) + 1
        elif isinstance(node, ast.stmt):
            yield from ((one, 0) for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr))
            yield from ((one.context_expr, 0) for one in ast.iter_child_nodes(node) if isinstance(one, ast.withitem))


def names_of(part: ast.AST) -> set[str]:
    """Names to which a part gives values: those that it assigns, or for which `parametrize` gives them."""
    if isinstance(part, ast.Assign | ast.AnnAssign):
        targets = part.targets if isinstance(part, ast.Assign) else [part.target]
        return {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    if isinstance(part, ast.Call) and ast.unparse(part.func).endswith("parametrize"):
        texts = [str(one.value) for one in ast.walk(part.args[0]) if isinstance(one, ast.Constant)]
        return {name.strip() for text in texts for name in text.split(",")}
    return set()


def tolerance_names(tree: ast.AST) -> set[str]:
    """Names that stand for a tolerance, with no number of their own beside them."""
    values = [node for node in tolerances(tree) if not isinstance(node, ast.Compare) and not numbers(node)]
    return {one.id for node in values for one in ast.walk(node) if isinstance(one, ast.Name)}


def bare_tolerances(source: str, shared: frozenset[str] = frozenset()) -> list[str]:
    """`LINE: TEXT` of each tolerance with no comment on its lines, at the end of its statement, or right above either.

    A named tolerance has its reason where the name is given its number, where a docstring may also give it.
    """
    tree, lines = ast.parse(source), source.splitlines()
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    told = {one.start[0] for one in tokens if one.type == tokenize.COMMENT and not one.string.startswith(DIRECTIVES)}
    alone = {line for line in told if lines[line - 1].lstrip().startswith("#")}
    docstrings = {
        one.lineno
        for one in ast.walk(tree)
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) and isinstance(one.value.value, str)
    }
    used = tolerance_names(tree) | shared
    found = []
    for part, below in parts(tree):
        named = [part] if names_of(part) & used else []
        for node in [*named, *tolerances(part)]:
            if not numbers(node):
                continue
            beside = {*range(node.lineno, (node.end_lineno or 0) + 1), part.end_lineno}
            if not (beside & told or {node.lineno - 1, part.lineno - 1} & alone or below in docstrings):
                found.append(f"{node.lineno}: {lines[node.lineno - 1].strip()}")
    return list(dict.fromkeys(found))


def test_every_tolerance_has_its_reason() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in sorted(TESTS.rglob("*.py"))}
    shared = frozenset(name for text in sources.values() for name in tolerance_names(ast.parse(text)) if name.isupper())
    bare = [f"{name}:{found}" for name, text in sources.items() for found in bare_tolerances(text, shared)]
    assert not bare, "\n".join(["say why beside each of these, in a comment:", *bare])


@pytest.mark.parametrize(
    ("source", "bare"),
    [
        ("assert_allclose(a, b, atol=0.3)", 1),
        ("assert_allclose(a, b, 1e-3)", 1),
        ("assert_allclose(a, b, atol=0.3)  # why", 0),
        ("assert_allclose(a, b, atol=0.3)  # noqa: E501", 1),
        ("# why\nassert_allclose(a, b, atol=0.3)", 0),
        ("# why\n\nassert_allclose(a, b, atol=0.3)", 1),
        ("x = 1  # why\nassert_allclose(a, b, atol=0.3)", 1),
        ("assert_allclose(\n  a,\n  b,\n  atol=1e-3,\n)", 1),
        ("assert_allclose(\n  a,\n  b,\n  atol=1e-3,  # why\n)", 0),
        ("for a in x:\n  if b:\n    assert a == approx(b, abs=5 * c)", 1),
        ("assert a == approx(0.25)", 0),
        ("assert abs(a - b) < 3", 1),
        ("assert 0 < a < 0.1", 1),
        ("assert len(a) < 3 and 0 <= b <= 1.0", 0),
        ("assert all(ops.abs(a - b) < 1e-3)", 1),
        ("with near(atol=1e-3):\n  pass", 1),
        ("NEAR = {'rtol': 1e-3}\nf(**NEAR)", 1),
        ("NEAR = {'rtol': 1e-3}\n'a docstring'\nf(**NEAR)", 0),
        ("NEAR = 1e-3\nf(atol=NEAR)", 1),
        ("NEAR = 1e-3  # why\nf(atol=NEAR)", 0),
        ("@pytest.mark.parametrize(('a', 'near'), [(5, 1e-3)])\ndef test(a, near):\n  f(a, atol=near)", 1),
        ("@pytest.mark.parametrize('near', [1e-3])  # why\ndef test(near):\n  f(atol=near)", 0),
    ],
)
def test_a_bare_tolerance_is_found(source: str, bare: int) -> None:
    assert len(bare_tolerances(source)) == bare


@pytest.mark.parametrize("bug", mutants.read_bugs(), ids=lambda bug: bug.name)
def test_a_planted_bug_has_its_place_and_its_tests(bug: mutants.Bug) -> None:
    """A line that was rewritten, or a test that was renamed, takes its bug along."""
    assert (mutants.ROOT / bug.file).read_text(encoding="utf-8").count(bug.before) == 1
    for test in bug.tests:
        name, _, function = test.partition("::")
        text = (mutants.ROOT / name).read_text(encoding="utf-8")
        assert not function or re.search(rf"^ *(async )?def {re.escape(function.partition('[')[0])}\(", text, re.M)
