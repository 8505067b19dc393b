"""Programs (jaxprs) as data: calling them, inlining their calls, and what a backward pass has to be given of them."""

import collections
import functools
import itertools
import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core

from s2s_jax.model.ops.target import platform

Leaves = Sequence[Any]
Variable = Any

# the names of operations, by what they cost beside reading their operands
MOVES = frozenset(
    {"broadcast_in_dim", "concatenate", "convert_element_type", "copy", "expand_dims", "iota", "reshape", "reshard"}
    | {"rev", "slice", "split", "squeeze", "stack", "stop_gradient", "transpose", "unstack"}
)
ARITHMETIC = frozenset(
    {"abs", "add", "add_any", "and", "eq", "ge", "gt", "integer_pow", "le", "lt", "max", "min", "mul", "ne", "neg"}
    | {"not", "one_minus_square", "or", "select_n", "sign", "sub"}
)
TRANSCENDENTAL = frozenset(
    {"div", "exp", "expm1", "log", "log1p", "logistic", "pow", "rsqrt", "sqrt", "square", "tanh"}
)
LINEAR = frozenset({"add_any", "expand_dims", "neg", "reshape", "squeeze", "transpose"})  # of which sums are sums
CALLS = frozenset({"jit", "pjit", "closed_call", "core_call"})
DERIVED = frozenset({"custom_jvp_call", "custom_vjp_call"})


def call(jaxpr: core.Jaxpr, consts: Leaves, arguments: Leaves) -> list[Any]:
    """The results of a program."""
    return core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, list(consts)))(*arguments)


def trace(function: Callable[..., Any], *arguments: Any, differentiable: bool = True) -> core.ClosedJaxpr:
    """The program of a function, in which every call of a compiled function is replaced by what it does.

    So is a choice between platforms by that for the platform of `target`, and unless `differentiable`, a function with
    a derivative of its own by the function.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    inlined = functools.partial(_inlined, closed.jaxpr, closed.consts, CALLS | (set() if differentiable else DERIVED))
    return jax.make_jaxpr(inlined)(*jax.tree.leaves(arguments))


def _inlined(jaxpr: core.Jaxpr, consts: Leaves, calls: Container[str], *arguments: Any) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(variable: Variable) -> Any:
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    for equation in jaxpr.eqns:
        inputs = [read(variable) for variable in equation.invars]
        called = _called(equation, calls)
        if called is not None:
            outputs = _inlined(called.jaxpr, called.consts, calls, *inputs[len(inputs) - len(called.jaxpr.invars) :])
        else:
            given = unique(equation.invars)
            single = jaxpr.replace(constvars=[], invars=given, outvars=equation.outvars, eqns=[equation])
            outputs = call(single, [], [values[variable] for variable in given])
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _called(equation: core.JaxprEqn, calls: Container[str]) -> core.ClosedJaxpr | None:
    """The program that an equation does nothing but call."""
    platforms = equation.params.get("branches_platforms")
    if platforms is not None:
        here = {"cuda", "rocm"} if platform() == "gpu" else {platform()}
        ours = [names is None or not here.isdisjoint(names) for names in platforms]
        return equation.params["branches"][ours.index(True)]
    if equation.primitive.name not in calls:
        return None
    return equation.params.get("jaxpr") or equation.params["call_jaxpr"]


def hoisted(jaxpr: core.Jaxpr, fixed: Sequence[Variable], values: Leaves) -> tuple[core.Jaxpr, list[Any]]:
    """A program without what depends on variables of fixed values alone, and what that comes to.

    The results come first among the arguments of the program. What is larger than its operands is left, but for
    rounded numbers that are made wide again.
    """
    known, early, late = set(fixed), [], []
    for equation in jaxpr.eqns:
        operands = unique(equation.invars)
        grows = sum(map(elements, equation.outvars)) > sum(map(elements, operands))
        if operands and known.issuperset(operands) and not grows and not equation.effects:
            early.append(equation)
            known.update(equation.outvars)
        else:
            late.append(equation)
    computed = {variable for equation in early for variable in equation.outvars}
    used = unique(itertools.chain(*(equation.invars for equation in late), jaxpr.outvars))
    results = [variable for variable in used if variable in computed]
    before = jaxpr.replace(constvars=[], invars=list(fixed), outvars=results, eqns=early)
    return jaxpr.replace(invars=[*results, *jaxpr.invars], eqns=late), call(before, [], values)


def unique(variables: Iterable[Variable]) -> list[Variable]:
    """The variables among variables and literals, each once."""
    return list(dict.fromkeys(variable for variable in variables if not isinstance(variable, core.Literal)))


def definitions(jaxpr: core.Jaxpr) -> dict[Variable, core.JaxprEqn]:
    """The equation that computes each variable."""
    return {variable: equation for equation in jaxpr.eqns for variable in equation.outvars}


def shape(variable: Variable) -> tuple[int, ...]:
    """The shape of a variable."""
    return variable.aval.shape


def elements(variable: Variable) -> int:
    """The number of a variable's elements."""
    return math.prod(variable.aval.shape)


def size(variable: Variable) -> int:
    """The bytes of a variable."""
    return elements(variable) * variable.aval.dtype.itemsize


def rebuilding(jaxpr: core.Jaxpr, given: Sequence[Variable], wanted: Iterable[Variable]) -> core.Jaxpr:
    """The program that computes the wanted variables of a program from the given ones."""
    wanted, needed, equations, known = list(wanted), set(unique(wanted)), [], set(given)
    for equation in reversed(jaxpr.eqns):
        if any(variable in needed and variable not in known for variable in equation.outvars):
            equations.append(equation)
            needed.update(unique(equation.invars))
    return jaxpr.replace(constvars=[], invars=list(given), outvars=wanted, eqns=equations[::-1])


def least_to_keep(
    jaxpr: core.Jaxpr,
    wanted: Iterable[Variable],
    free: Container[Variable],
    cheap: Container[str],
    *,
    cost: Callable[[Variable], float] = size,
) -> list[Variable]:
    """The variables of least cost from which, with the free ones, cheap operations compute the wanted ones.

    This is a minimum cut between what is expensive to compute and what is wanted: the idea of "min-cut
    rematerialization" in PyTorch's AOTAutograd.
    """
    defined = definitions(jaxpr)
    graph: dict[Any, dict[Any, float]] = collections.defaultdict(dict)  # remaining capacities

    def connect(start: Any, end: Any, capacity: float) -> None:
        graph[start][end] = capacity
        graph[end].setdefault(start, 0)

    pending, seen = unique(wanted), set()
    for variable in pending:
        connect(("out", variable), "sink", math.inf)
    while pending:
        variable = pending.pop()
        if variable in seen or variable in free:
            continue
        seen.add(variable)
        connect(("in", variable), ("out", variable), cost(variable))
        equation = defined.get(variable)
        if equation is None or equation.primitive.name not in cheap:
            connect("source", ("in", variable), math.inf)
            continue
        for read in unique(equation.invars):
            if read not in free:
                connect(("out", read), ("in", variable), math.inf)
                pending.append(read)
    while (path := _path(graph)) is not None:
        flow = min(graph[start][end] for start, end in itertools.pairwise(path))
        for start, end in itertools.pairwise(path):
            graph[start][end] -= flow
            graph[end][start] += flow
    reached = _predecessors(graph)
    ordered = unique(itertools.chain(jaxpr.invars, *(equation.outvars for equation in jaxpr.eqns)))
    return [variable for variable in ordered if ("in", variable) in reached and ("out", variable) not in reached]


def _predecessors(graph: Mapping[Any, Mapping[Any, float]]) -> dict[Any, Any]:
    """For every node that can be reached from the source where capacity remains, the node before it."""
    before: dict[Any, Any] = {"source": None}
    queue: collections.deque[Any] = collections.deque(["source"])
    while queue:
        node = queue.popleft()
        for following, capacity in graph[node].items():
            if capacity > 0 and following not in before:
                before[following] = node
                queue.append(following)
    return before


def _path(graph: Mapping[Any, Mapping[Any, float]]) -> list[Any] | None:
    """A shortest path from the source to the sink where capacity remains."""
    before = _predecessors(graph)
    if "sink" not in before:
        return None
    path: list[Any] = []
    node: Any = "sink"
    while node is not None:
        path.append(node)
        node = before[node]
    return path[::-1]
