"""No ordinary test depends on the speed of the machine.

A test waits for an event, however long that takes. Timeouts run by a clock that the test moves.
Tests marked ``faults`` may have generous bounds on real time. The checks here find the usual ways
to write such a bound, but not all.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SHORTEST_WAIT_S = 30
"""Seconds. On a busy machine, a shorter wait may end before its event."""
EXCUSE = "# real time"
"""A comment that begins with this and gives a reason excuses a line."""
CLOCKS = {"monotonic", "perf_counter"}
WAITS = {"wait", "wait_for", "communicate", "result", "join", "acquire", "settimeout", "run"}


def findings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the problem of each suspicious expression, also in strings of code."""
    lines = source.splitlines()
    tree = ast.parse(source)
    if any(isinstance(each, ast.Assign) and _is_faults(each.value) for each in tree.body):
        return
    excused: set[ast.AST] = set()
    for node in ast.walk(tree):
        decorators = getattr(node, "decorator_list", [])
        if any(_is_faults(each) for each in decorators):
            excused.update(ast.walk(node))
    for node in ast.walk(tree):
        if node in excused:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            try:
                inner = list(findings(textwrap.dedent(node.value)))
            except (SyntaxError, ValueError):  # ValueError for null bytes, before Python 3.12
                continue
            yield from ((node.lineno + line - 1, problem) for line, problem in inner)
        elif problem := _problem(node):
            line = node.lineno  # type: ignore[attr-defined]
            if not any(EXCUSE in each for each in lines[line - 1 : line + 1]):
                yield line, problem


def _is_faults(node: ast.expr) -> bool:
    return "mark.faults" in ast.unparse(node)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _reads_clock(node: ast.AST) -> bool:
    return any(
        isinstance(each, ast.Call) and not each.args and _name(each.func) in CLOCKS
        for each in ast.walk(node)
    )


def _number(node: ast.expr | None) -> float | None:
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _problem(node: ast.AST) -> str:
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        for operator, less, more in zip(node.ops, sides, sides[1:], strict=False):
            # An elapsed time < a bound is an upper bound; with the sides swapped it is a lower one.
            if isinstance(operator, (ast.Gt, ast.GtE)):
                less, more = more, less
            elif not isinstance(operator, (ast.Lt, ast.LtE)):
                continue
            if isinstance(less, ast.BinOp) and isinstance(less.op, ast.Sub) and _reads_clock(less):
                return "bounds the time that something takes"
            if ast.unparse(less) == "ended.seconds":
                return "bounds the time that something takes"
    elif isinstance(node, ast.Call):
        name = _name(node.func)
        if name == "sleep" and _number(node.args[0] if node.args else None) != 0:
            return "sleeps instead of waiting for an event"
        if name in WAITS:
            waits = [] if name == "run" else [_number(each) for each in node.args]
            waits += [_number(each.value) for each in node.keywords if each.arg == "timeout"]
            if any(each is not None and 1 <= each < SHORTEST_WAIT_S for each in waits):
                return f"waits for less than {SHORTEST_WAIT_S} s"
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and _reads_clock(node.left):
        ahead = _number(node.right)
        if ahead is not None and ahead < SHORTEST_WAIT_S:
            return f"has a deadline in less than {SHORTEST_WAIT_S} s"
    return ""


ORDINARY = sorted(path for path in TESTS.rglob("test_*.py") if path != Path(__file__))
"""Only test modules: helpers, such as workers that pause between operations, may sleep."""


@pytest.mark.parametrize("path", ORDINARY, ids=lambda path: str(path.relative_to(TESTS)))
def test_a_test_module_has_no_bound_on_real_time(path: Path) -> None:
    found = sorted(findings(path.read_text()))
    assert not found, "\n".join(f"{path}:{line} {problem}" for line, problem in found)


@pytest.mark.parametrize(
    "line",
    [
        "assert time.monotonic() - started < 5",
        "assert 2 < monotonic() - started <= 5",
        "assert 5 > perf_counter() - started",
        "assert ended.seconds < 20",
        "time.sleep(0.1)",
        "asyncio.sleep(pause)",
        "event.wait(5)",
        "process.communicate(timeout=10)",
        "asyncio.wait_for(read, 5)",
        "eventually(done, time.monotonic() + 5)",
        "script('''\nimport time\ntime.sleep(1)\n''')",
    ],
)
def test_an_upper_bound_on_real_time_is_detected(line: str) -> None:
    assert list(findings(f"def test_it():\n{textwrap.indent(line, '    ')}\n"))


@pytest.mark.parametrize(
    "line",
    [
        "assert time.monotonic() - started >= 5",
        "assert time.monotonic() < deadline",
        "asyncio.sleep(0)",
        "time.sleep(0.1)  # real time: gives the other tasks a turn",
        "event.wait(60)",
        "event.wait(0)",
        "eventually(done, time.monotonic() + 60)",
    ],
)
def test_waits_and_lower_bounds_are_accepted(line: str) -> None:
    assert not list(findings(f"def test_it():\n    {line}\n"))
    assert not list(findings("@pytest.mark.faults\ndef test_it():\n    time.sleep(1)\n"))
