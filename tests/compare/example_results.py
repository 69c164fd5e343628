"""Results as a run would leave them, made by hand from a seeded generator."""

import numpy as np

from twograd.compare import results as rs
from twograd.pictures import Edge, Node, Picture
from twograd.pictures.account import Account, Block, Equation, Section, ToldStep

ENGINES = [
    rs.EngineInfo("tape", "twograd.tape, one node per op", "dynamic", "twograd", "0.1.0", True),
    rs.EngineInfo("graph", "twograd.graph, compiled", "static", "twograd", "0.1.0", True),
    rs.EngineInfo("jax-jit", "jax.jit(jax.value_and_grad)", "static", "jax", "0.10.2", True),
    rs.EngineInfo(
        "torch", "PyTorch, eager", "dynamic", "torch", "", False, "not installed (pip install 'twograd[torch]')"
    ),
    rs.EngineInfo("autograd", "HIPS autograd", "dynamic", "autograd", "1.9.1", True),
    rs.EngineInfo("tape-primitive", "twograd.tape, one node per primitive", "dynamic", "twograd", "0.1.0", True),
    rs.EngineInfo("graph-eager", "twograd.graph, interpreted", "static", "twograd", "0.1.0", True),
    rs.EngineInfo("jax-eager", "jax.value_and_grad without jit", "dynamic", "jax", "0.10.2", True),
]

PER_CALL = {  # seconds per op, and per multiplication of two numbers
    "tape": (40e-6, 1.1e-10), "graph": (1.2e-6, 1e-10), "jax-jit": (1.21e-6, 1e-10), "autograd": (21e-6, 1.5e-10),
    "tape-primitive": (90e-6, 1.1e-10), "graph-eager": (45e-6, 1.1e-10), "jax-eager": (800e-6, 1.1e-10),
}  # fmt: skip

PAID_ONCE = {
    "graph": {"trace": 2e-3, "transform": 3e-3, "passes": 1.5e-3, "lower": 9e-3, "compile": 0.11, "first call": 1e-4},
    "jax-jit": {"trace": 7e-3, "lower": 1e-2, "compile": 0.113, "first call": 1e-4},
    "graph-eager": {"trace": 2e-3, "transform": 3e-3, "passes": 1.5e-3, "first call": 0.08},
    "tape": {"first call": 0.07}, "tape-primitive": {"first call": 0.05}, "jax-eager": {"first call": 0.19},
    "autograd": {"first call": 4e-4},
}  # fmt: skip

SOURCE = """from twograd.compare import Comparison


def loss(ops, x):
    return ops.np.sum(x * x)  # <b>not bold</b> & "quoted"


comparison = Comparison(inputs=inputs, loss=loss)
"""

WALK = Account(
    "size=8, depth=2",
    5,
    768,
    (
        ToldStep(
            "MulBackward0 #2",
            "of mul at op_chain.py:6 (loss)",
            "node",
            ("op2", "node2"),
            (
                Section("queue", "Queue", (("▸ MulBackward0 #2", "1 of 1 arrived", "taken now"),)),
                Section("saved", "Saved values", empty="This rule needs none."),
                Section(
                    "rules", "Rule", (), (Block("mul with respect to x", "elementwise.py:60", "lambda ct, y: ct"),)
                ),
            ),
        ),
        ToldStep(
            "TanhBackward0 #1",
            "of tanh at op_chain.py:5 (loss)",
            "node",
            ("op1", "node1"),
            (
                Section("outgoing", "Cotangents handed on", (("to MatmulBackward0 #0", "f32[8,8]", "[1 … 2]"),)),
                Section("rules", "Rule", (), (Block("tanh with respect to x", "elementwise.py:9", "", 0),)),
            ),
        ),
        ToldStep("AccumulateGrad of w", "the end of the graph at the leaf w", "leaf", ("leaf0", "leaf0.grad"), ()),
    ),
    Picture(
        "graph of output",
        (
            Node("leaf0", ("w",), "leaf", ("f32[8,8]",)),
            Node("op1", ("tanh",), "forward"),
            Node("op2", ("mul",), "forward"),
            Node("leaf0.grad", ("AccumulateGrad",), "backward", lane=2),
            Node("node1", ("TanhBackward0",), "backward", tag="#1", lane=2),
            Node("node2", ("MulBackward0",), "backward", tag="#2", lane=2),
        ),
        (Edge("leaf0", "op1"), Edge("op1", "op2"), Edge("node2", "node1", "cotangent", up=True)),
        "2 ops, 1 leaf",
        (),
        ("forward", "saved", "backward"),
    ),
    ("a:f32[8,8]  x", "b:f32[8,8]  w"),
    "f, g",
    (
        Equation(1, "d:f32[8,8] = tanh c", None, None, 1),
        Equation(2, "e:f32[8,8] = mul d d", None, None, 0),
        *(Equation(n, f"v{n}:f32[8,8] = mul d d", "tanh.1", None, 1) for n in range(3, 15)),
    ),
    16,
)

TRACE = rs.Trace(
    "size=8, depth=2",
    ("a:f32[8,8]  x", "b:f32[8,8]  w"),
    "f, g",
    (
        rs.Line(4, "def loss(ops, x, w):", (), (), ()),
        rs.Line(
            5,
            "    y = ops.np.tanh(x @ w)",
            (
                rs.Part("MatmulBackward0 #0: saved x f32[8,8], w f32[8,8]", 0, 3),  # a step that is not told
                rs.Part("TanhBackward0 #1: saved result f32[8,8]", 1, 1),
            ),
            (rs.Part("0 c:f32[8,8] = dot_general[...] a b", 0, 3), rs.Part("1 d:f32[8,8] = tanh c", 1, 1, 12.5e-6)),
            tuple(rs.Part(f"{n} v{n}:f32[8,8] = mul " + "d " * n + "  <- tanh.1", 1, 1) for n in range(3, 15)),
            768,
            30e-6,
            90e-6,
        ),
        rs.Line(
            6,
            "    return ops.np.sum(y * y)" + "  # a remark that goes on" * 5,
            (rs.Part("MulBackward0 #2", 2, 0),),
            (rs.Part("2 e:f32[8,8] = mul d d", 2, 0),),
            (),
            0,
            20e-6,
        ),
        rs.Line(0, "(of no line of this file)", (), (), (rs.Part("15 f:f32[] = convert_element_type e"),)),
    ),
    passes=15,
    walk=WALK,
)

FAMILY = {info.name: info.rules for info in ENGINES}


def measurement(rng: np.random.Generator, seconds: float, n: int = 21, spread: float = 0.03) -> rs.Measurement:
    """Samples around ``seconds`` with the long tail upwards that timings have."""
    samples = seconds * (1 + spread * rng.gamma(2.0, 0.7, size=n))
    return rs.Measurement(tuple(float(s) for s in samples), loops=10, warmup_calls=33)


def check(engine: str, witness: str, error: float, family: str) -> rs.Check:
    return rs.Check(
        witness, FAMILY[engine] != family, True, error, 10 * error, 3.0, "1e-04 of the value", "largest in w"
    )


def row(rng: np.random.Generator, engine: str, size: int, depth: int) -> rs.Row:
    per_op, per_multiplication = PER_CALL[engine]
    gradient = depth * (8 * per_op + 6 * size**3 * per_multiplication)
    spread = 0.2 if engine == "jax-eager" else 0.03
    once = {**PAID_ONCE[engine], "first call": PAID_ONCE[engine]["first call"] + gradient}
    stages = {stage: measurement(rng, seconds, n=3) for stage, seconds in once.items()}
    stages["forward"] = measurement(rng, 0.4 * gradient, spread=spread)
    stages["forward+backward"] = measurement(rng, gradient, spread=spread)
    stages["step"] = measurement(rng, 1.1 * gradient, spread=spread)
    counts: dict[str, int | float] = {"forward nodes": 4 * depth + 2, "saved bytes": 4 * size * size * depth}
    texts = {}
    if engine.startswith("tape"):
        stages["record"] = measurement(rng, 0.6 * gradient)
        stages["backward"] = measurement(rng, 0.5 * gradient)
    if engine in ("graph", "jax-jit"):
        counts |= {
            "derivative nodes": 11 * depth + 5,
            "temp bytes": 9 * size * size * depth,
            "flops": 6e0 * size**3 * depth,
        }
        body = "\n".join(f"    v{i}:f32[{size},{size}] = tanh v{i - 1}" for i in range(1, depth + 1))
        texts = {
            "forward": f"{{ lambda ; v0:f32[{size},{size}]. let\n{body}\n  in (v{depth},) }}",
            "derivative": f"{{ lambda ; v0:f32[{size},{size}]. let\n{body}\n{body}\n  in (v{depth},) }}",
        }
    checks = [
        check(engine, "finite differences (float64)", 2e-8, ""),
        check(engine, "jax.grad (float64)", 6e-8, "jax"),
        *(check(engine, other, 1e-8, FAMILY[other]) for other in PER_CALL if other != engine),
    ]
    return rs.Row(engine, "ok", loss=0.5, checks=checks, stages=stages, counts=counts, texts=texts)


def case(rng: np.random.Generator, size: int, depth: int) -> rs.CaseResult:
    rows = [row(rng, engine, size, depth) for engine in PER_CALL]
    absent = rs.Row("torch", "skipped", "not installed (pip install 'twograd[torch]')")
    return rs.CaseResult(f"size={size}, depth={depth}", {"size": size, "depth": depth}, [*rows, absent])


def chain(rng: np.random.Generator) -> rs.ComparisonResult:
    points = [(8, 2), (8, 16), (32, 2), (256, 2)]
    return rs.ComparisonResult(
        "op_chain",
        "What does one op cost, and how does that depend on the size of its tensors?",
        "Each link is a matrix product and a tanh.\n\nOn small tensors the time is what an engine spends per op.",
        SOURCE,
        seconds=12.5,
        axes=["size", "depth"],
        cases=[case(rng, size, depth) for size, depth in points],
        trace=TRACE,
    )


def experiment(rng: np.random.Generator) -> rs.ComparisonResult:
    steps = list(range(60))
    losses = [float(2.3 * np.exp(-i / 20) + 0.02 * rng.random()) for i in steps]
    findings: list[rs.Finding] = [
        rs.Observation("Both engines reach a test accuracy of 96.4 %; their losses differ by at most 3e-07."),
        rs.Curves(
            "Loss while training",
            "step",
            "cross entropy",
            [rs.Series("tape", steps, losses, "tape"), rs.Series("graph", steps, losses, "graph")],
        ),
        rs.Curves(
            "Nodes by order",
            "order",
            "nodes",
            [
                rs.Series("with passes", [1, 2, 3, 4, 5], [12, 31, 80, 201, 515], "graph"),
                rs.Series("without passes", [1, 2, 3, 4, 5], [17, 60, 230, 911, float("inf")]),
            ],
            y_scale="log",
        ),
        rs.Table(
            "Orders of the derivative",
            ["order", "nodes", "time", "compiles"],
            [[1, 12, 0.0123456, True], [2, 31, float("nan"), None]],
            ["", "", "ms", ""],
            "Counted after all passes.",
        ),
        rs.Listing("The traced loop", "{ lambda ; a:f32[]. let\n    b:f32[] = sin a\n  in (b,) }"),
    ]
    return rs.ComparisonResult(
        "mlp_digits", "Do both engines train alike?", "", "comparison = ...\n", seconds=3.0, findings=findings
    )


def failed() -> rs.ComparisonResult:
    return rs.ComparisonResult(
        "broken", "Does it run?", "", "import nothing_here\n", "failed", "comparisons/broken.py:1: does not import."
    )


def results() -> rs.Results:
    rng = np.random.default_rng(0)
    environment = {
        "versions": {"python": "3.11.9", "twograd": "0.1.0", "jax": "0.10.2"},
        "machine": {"system": "Linux", "cpu": {"brand_raw": "Example CPU @ 2.50GHz", "count": 2}, "usable_cores": 2},
        "devices": {"device": "cpu", "kind": "cpu", "count": 1, "platform": "cpu"},
        "options": {"jax_enable_x64": False, "jax_default_matmul_precision": None},
        "commit": {"id": "0123456789abcdef", "dirty": False},
        "command": "twograd report --quick",
    }
    return rs.Results(
        rs.Settings(quick=True, engines=[info.name for info in ENGINES]),
        environment,
        ENGINES,
        [chain(rng), experiment(rng), failed()],
        "2026-11-23T14:24:38+00:00",
        "2026-11-23T14:25:08+00:00",
    )
