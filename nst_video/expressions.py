"""Arithmetic in schedules, with the names and functions that Deforum's schedules use.

The text is parsed, looked through node by node against the lists below, and then evaluated by simpleeval with
operators of ours that know floats only: nothing else can be named, and no number can grow beyond a float.
"""

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nst_video.schedules import ScheduleError

LONGEST = 1000  # characters
DEEPEST = 100  # levels of parentheses, functions and operators, of which a + b + c has two
NAMES = ("t", "max_f", "time", "beat", "pi")
_HINTS = {
    "s": "in Deforum s is the seed, which nothing here depends on; the time in seconds is called time",
    "frame": "the frame's number is called t",
}
_BLANKS = str.maketrans("\t\r\n", "   ")
_CHARACTERS = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.+-*/%(),<>=!&| \t\r\n")


def _lenient(function: Callable[..., Any]) -> Callable[..., float]:
    """As arithmetic on arrays has it: what has no value is not a number, and what is too large is infinite."""

    def computed(*values: float) -> float:
        try:
            found = function(*map(float, values))
            return math.nan if isinstance(found, complex) else float(found)
        except OverflowError:
            return math.inf
        except (ValueError, ZeroDivisionError):
            return math.nan

    return computed


def _both(a: float, b: float) -> bool:
    return bool(a) and bool(b)


def _either(a: float, b: float) -> bool:
    return bool(a) or bool(b)


_ARITHMETIC: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: math.fmod,  # the sign of the left side, as in C and numexpr
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.BitAnd: _both,
    ast.BitOr: _either,
}
_OPERATORS = {kind: _lenient(function) for kind, function in _ARITHMETIC.items()}
# name -> (function, number of arguments)
_FUNCTIONS: dict[str, tuple[Callable[..., float], int]] = {
    name: (_lenient(function), count)
    for name, (function, count) in {
        "where": (lambda condition, yes, no: yes if condition else no, 3),
        "arctan2": (math.atan2, 2),
        "min": (min, 2),
        "max": (max, 2),
        **{name: (getattr(math, name), 1) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "expm1")},
        **{name: (getattr(math, name), 1) for name in ("log", "log10", "log1p", "sqrt", "floor", "ceil")},
        **{f"arc{name}": (getattr(math, f"a{name}"), 1) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
        "abs": (abs, 1),
    }.items()
}


@dataclass(frozen=True)
class Expression:
    """An expression that has been looked through; `names` are those that it uses."""

    text: str
    tree: ast.expr = field(compare=False, repr=False)
    names: frozenset[str]

    def value(self, names: Mapping[str, float]) -> float:
        """Its value where the names have these values; may be infinite or not a number."""
        from simpleeval import SimpleEval

        evaluator = SimpleEval(
            operators=_OPERATORS,
            functions={name: function for name, (function, _) in _FUNCTIONS.items()},
            names={**names, "pi": math.pi},
        )
        return float(evaluator.eval(self.text, previously_parsed=self.tree))


def parse_expression(inner: str, text: str, offset: int) -> Expression:
    """The expression `inner`, which stands in `text` from column `offset` on; ScheduleError for all but arithmetic."""
    if len(inner) > LONGEST:
        raise ScheduleError(f"an expression has at most {LONGEST} characters, not {len(inner)}", text, offset)
    for place, char in enumerate(inner):
        if char not in _CHARACTERS:
            raise ScheduleError(f"{char!r} has no meaning in an expression", text, offset + place)
    if not inner.strip():
        raise ScheduleError("an expression is missing here", text, offset)
    lead = len(inner) - len(inner.lstrip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as a number that runs into a word
            # In parentheses it may begin with a sign or a space; they shift its columns by one.
            tree = ast.parse(f"({inner.strip().translate(_BLANKS)})", mode="eval").body
    except (SyntaxError, SyntaxWarning, DeprecationWarning, ValueError, RecursionError, MemoryError) as error:
        column = (getattr(error, "offset", None) or 2) - 2
        problem = "something is missing or too much here"
        raise ScheduleError(problem, text, offset + lead + max(0, min(column, len(inner.strip())))) from None
    checker = _Checker(text, offset + lead - 1)
    checker.check(tree)
    return Expression(inner, tree, frozenset(checker.names))


class _Checker:
    """Looks through a tree and refuses all that is not arithmetic."""

    def __init__(self, text: str, offset: int):
        self.text, self.offset = text, offset
        self.names: set[str] = set()

    def check(self, node: ast.AST, depth: int = 0) -> None:
        if depth > DEEPEST:
            raise self._error(f"this is nested more than {DEEPEST} levels deep", node)
        for child in self._parts(node):
            self.check(child, depth + 1)

    def _parts(self, node: ast.AST) -> list[ast.expr]:
        """What a node is made of, once it is allowed itself."""
        match node:
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                if isinstance(node.value, int) and node.value.bit_length() > 1000:
                    raise self._error("this number is too large", node)
                return []
            case ast.Name(id=name):
                if name not in NAMES:
                    hint = _HINTS.get(name, f"there are {', '.join(NAMES)}")
                    raise self._error(f"unknown name {name!r}; {hint}", node)
                self.names.add(name)
                return []
            case ast.UnaryOp(op=kind, operand=operand) if type(kind) in _OPERATORS:
                return [operand]
            case ast.BinOp(left=left, op=kind, right=right) if type(kind) in _OPERATORS:
                return [left, right]
            case ast.Compare(left=left, ops=kinds, comparators=others) if all(type(k) in _OPERATORS for k in kinds):
                return [left, *others]
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self._arguments(name, args, node)
        raise self._error("only numbers, names, functions and arithmetic can stand here", node)

    def _arguments(self, name: str, args: list[ast.expr], node: ast.AST) -> list[ast.expr]:
        if name not in _FUNCTIONS:
            raise self._error(f"unknown function {name!r}; there are {', '.join(sorted(_FUNCTIONS))}", node)
        count = _FUNCTIONS[name][1]
        if len(args) != count:
            raise self._error(f"{name} takes {count} value{'s' * (count > 1)}, not {len(args)}", node)
        return args

    def _error(self, problem: str, node: ast.AST) -> ScheduleError:
        return ScheduleError(problem, self.text, self.offset + max(1, getattr(node, "col_offset", 1)))
