"""A widely read note on PyTorch's autograd, claim by claim: what it says, whether that holds, and how one can tell.

What flows in: nothing. What flows out: a verdict per claim, in English and Chinese, which its ``check`` establishes by
running: it raises AssertionError if the verdict were wrong, and returns what it has measured. The note is
PyTorch学习笔记(12)——PyTorch中的Autograd机制介绍, of 2018, half of it a translation of PyTorch's own notes of that time.

``python -m twograd.lore`` writes ``docs/claims.md``. Read :class:`Claim`, then :func:`zero_grad_experiment`.
"""

# Tensor gets its operators and methods when the package is imported: a type checker does not see them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import twograd.numpy as tnp
import twograd.tape as torch
from twograd import graph, rules, tape
from twograd.graph import symbolic

Verdict = Literal["true", "imprecise", "outdated"]
VERDICTS_ZH = {"true": "正确", "imprecise": "不精确", "outdated": "已过时"}
NOTE = "PyTorch学习笔记(12)——PyTorch中的Autograd机制介绍"
CLAIMS: list["Claim"] = []


@dataclass(frozen=True, eq=False)
class Claim:
    """One claim. ``section`` is the note's own number; ``check`` runs the experiment and says what it found."""

    name: str
    section: str
    text: str
    text_zh: str
    verdict: Verdict
    why: str
    why_zh: str
    check: Callable[[], str]


def claim(
    name: str, section: str, text: str, text_zh: str, verdict: Verdict, why: str, why_zh: str
) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Enters the claim that the function below checks."""

    def entered(check: Callable[[], str]) -> Callable[[], str]:
        CLAIMS.append(Claim(name, section, text, text_zh, verdict, why, why_zh, check))
        return check

    return entered


def equal(a: Any, b: Any) -> bool:
    return bool(np.allclose(np.asarray(getattr(a, "array", a)), np.asarray(getattr(b, "array", b)), rtol=1e-5))


def raised(call: Callable[[], Any]) -> str:
    """The text of the error that ``call`` raises; empty if it raises none."""
    try:
        call()
    except (RuntimeError, TypeError, LookupError) as error:
        return str(error)
    return ""


# --- 1.1 excluding subgraphs ------------------------------------------------------------------------------------------


@claim(
    "any-input",
    "1.1",
    "If a single input of an operation requires gradient, its output requires gradient; only if no input does, the "
    "output does not.",
    "如果一个op有一个输入的requires_grad=True，那么输出的requires_grad也为True；当且仅当所有输入都不需要梯度时，输出才不"
    "需要梯度。",
    "true",
    "It holds while recording is on and the output is real or complex: under no_grad, or for integers such as an "
    "argmax, the output requires none.",
    "成立；前提是正在记录（不在no_grad中），且输出是实数或复数（如argmax的整数输出不需要梯度）。",
)
def any_input() -> str:
    x, y, z = torch.randn(5, 5), torch.randn(5, 5), torch.randn((5, 5), requires_grad=True)
    a = x + y
    b = a + z
    assert (a.requires_grad, b.requires_grad, a.grad_fn) == (False, True, None)
    with torch.no_grad():
        assert not (a + z).requires_grad
    assert not z.argmax().requires_grad
    return "a.requires_grad = False, b.requires_grad = True; under no_grad and for argmax False"


def frozen_network() -> tuple[Any, Any, Any, Any]:
    """Three frozen layers, and a new last one."""
    frozen = [torch.randn(8, 8) for _ in range(3)]
    head = torch.randn(8, 2, requires_grad=True)
    hidden = torch.randn(4, 8)
    for weight in frozen:
        hidden = (hidden @ weight).tanh()
    return frozen, head, hidden, (hidden @ head).sum()


@claim(
    "frozen-prefix",
    "1.1",
    "Backward computation is never performed in a subgraph where no Tensor requires gradients, and no intermediate "
    "buffers are saved there, until the last layer.",
    "当subgraph中所有Tensor都不需要梯度时，该subgraph永远不会执行反向计算，也不会保存任何中间缓存，直到最后一层。",
    "true",
    "No node is made there, so there is nothing to walk and nothing saved. It is true of a prefix only: frozen weights "
    "behind a layer that learns are still differentiated through, and save values.",
    "成立：那里不产生任何节点。但只对前缀成立：若冻结层位于可训练层之后，梯度仍要穿过它，并且会保存数值。",
)
def frozen_prefix() -> str:
    _, _, hidden, loss = frozen_network()
    stats = tape.stats(loss)
    assert hidden.grad_fn is None
    assert (stats.names["TanhBackward0"], stats.leaves) == (0, 1)
    first = torch.randn(8, 8, requires_grad=True)
    behind = tape.stats(((torch.randn(4, 8) @ first).tanh() @ torch.randn(8, 2)).sum())
    assert behind.names["TanhBackward0"] == 1
    return f"nodes before the head: 0 of {stats.nodes}; a frozen layer behind one that learns: {behind.nodes} nodes"


@claim(
    "fine-tuning",
    "1.1",
    "To fine-tune, set requires_grad=False for all parameters, replace the last layer (new parameters require grad by "
    "default), and optimise only its parameters.",
    "微调时把所有参数设为requires_grad=False，替换最后的全连接层（新参数默认需要梯度），并且只优化分类器的参数。",
    "true",
    "Only the head gets a gradient and the base stays the same to the bit. The trap is elsewhere: a parameter frozen "
    "later may still be moved by the momentum or weight decay of an optimizer that knows it.",
    "成立：只有新层得到梯度，其余权重逐位不变。真正的陷阱是：中途冻结的参数仍可能被优化器的动量或权重衰减改变。",
)
def fine_tuning() -> str:
    frozen, head, _, loss = frozen_network()
    before = [np.array(weight.array) for weight in frozen]
    loss.backward()
    with torch.no_grad():
        head -= 0.01 * head.grad
    assert head.grad is not None
    assert all(weight.grad is None for weight in frozen)
    assert all((old == np.asarray(weight.array)).all() for old, weight in zip(before, frozen, strict=True))
    return "gradients: head only; frozen weights identical to the bit"


# --- 1.2 how history is encoded ---------------------------------------------------------------------------------------


@claim(
    "dag",
    "1.2",
    "Autograd records the operations in a directed acyclic graph whose leaves are the input Tensors and whose roots "
    "are the output Tensors; grad_fn is the entry point, and the chain rule is applied from the roots to the leaves.",
    "autograd把执行过的算子记录在有向无环图（DAG）中，叶子是输入Tensor，根是输出Tensor；grad_fn是图的入口，从根到叶子按链式"
    "法则求梯度。",
    "true",
    "The nodes are operations (Function objects then, Nodes now); a leaf is an AccumulateGrad node, and only inputs "
    "that require gradients are leaves of the graph.",
    "成立。节点是算子（当时叫Function，现在叫Node）；叶子对应AccumulateGrad节点，且只有需要梯度的输入才在图中。",
)
def dag() -> str:
    x, y = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0)
    z = (x * y).exp()
    ((product, _),) = z.grad_fn.next_functions
    (leaf, _), other = product.next_functions
    assert (z.grad_fn.name(), product.name(), other[0]) == ("ExpBackward0", "MulBackward0", None)
    assert leaf.variable is x
    return "ExpBackward0 -> MulBackward0 -> (AccumulateGrad, None)"


@claim(
    "rebuilt",
    "1.2",
    "The graph is recreated from scratch at every iteration, and this is what allows arbitrary Python control flow: "
    "what you run is what you differentiate.",
    "图在每次迭代时都从头重建，这正是允许使用任意Python控制流的原因，可以在每次迭代中改变图的形状和大小。",
    "true",
    "It is how the tape works. It is not the only way to have control flow: static graphs have cond, while_loop and "
    "scan with derivatives, written in the graph's own words.",
    "成立。但这不是支持控制流的唯一方式：静态图也有带导数的cond、while_loop、scan，只是要用图自己的语言来写。",
)
def rebuilt() -> str:
    def f(x: Any) -> Any:
        while x < 10:
            x = x * x
        return x

    nodes, slopes = [], []
    for start in (2.0, 9.0):
        x = torch.tensor(start, requires_grad=True)
        y = f(x)
        nodes.append(tape.stats(y).nodes)
        y.backward()
        slopes.append(x.grad.item())
    assert nodes == [2, 1]
    assert slopes == [32.0, 18.0]
    bounded = graph.grad(lambda x: graph.bounded_while_loop(lambda v: v < 10, lambda v: v * v, x, 4))
    assert [float(bounded(jnp.float32(start))) for start in (2.0, 9.0)] == slopes
    return "nodes for x = 2 and x = 9: 2 and 1; the static bounded loop has the same derivatives: 32, 18"


# --- 1.3 in-place operations ------------------------------------------------------------------------------------------


@claim(
    "in-place-memory",
    "1.3",
    "In-place operations are discouraged: there are very few occasions when they lower memory usage by any significant "
    "amount.",
    "不建议使用in-place操作：autograd对缓存的释放和重用非常高效，in-place操作极少能显著降低内存使用。",
    "imprecise",
    "It depends on what rules save. Where neither the changed value nor the result is saved (adding, scaling) a change "
    "in place saves a buffer in PyTorch; where it is saved, it is an error. Over immutable arrays it saves nothing.",
    "不精确：取决于导数规则保存什么。若被改的值和结果都不需要保存（如加法、数乘），PyTorch中确实省一块缓存；若需要保存，则直"
    "接报错。在不可变数组之上则完全不省。",
)
def in_place_memory() -> str:
    def saved(in_place: bool) -> int:
        x = torch.ones(100, requires_grad=True)
        h = x.exp()
        h = (h * 1.0).add_(1.0).mul_(2.0) if in_place else (h * 1.0 + 1.0) * 2.0
        return tape.stats(h.sum()).saved_bytes

    assert saved(True) == saved(False)
    rows = {row.primitive: row.saves for row in rules.save_map() if row.primitive in ("add", "exp", "sin")}
    assert rows == {"add": (), "exp": ("out",), "sin": ("x",)}
    return (
        "bytes saved by the graph in place and out of place: the same; saved by exp: its result, sin: x, add: nothing"
    )


@claim(
    "in-place-overwrites",
    "1.3",
    "In-place operations can overwrite values that are required to compute gradients.",
    "in-place操作可能会覆盖计算梯度所需的值。",
    "true",
    "Each Tensor counts its changes and each saved value remembers the count; a difference is an error on the way "
    "back, never a wrong gradient. Which values are required is decided per rule.",
    "成立。每个Tensor有版本计数器，保存的值记住当时的版本；反向时版本不符就报错，不会给出错误的梯度。哪些值需要保存由每条"
    "规则决定。",
)
def in_place_overwrites() -> str:
    outcomes = {}
    for name, op in {"exp": torch.Tensor.exp, "pow": lambda x: x**2, "10 *": lambda x: x * 10}.items():
        for which in ("operand", "result"):
            x = torch.ones(2, requires_grad=True) * 1.0
            y = op(x)
            (x if which == "operand" else y).add_(1.0)
            error = raised(y.sum().backward)
            assert not error or "modified by an inplace operation" in error
            outcomes[name, which] = "error" if error else "legal"
    expected = {"exp": ("legal", "error"), "pow": ("error", "legal"), "10 *": ("legal", "legal")}
    assert outcomes == {
        (n, w): e for n, pair in expected.items() for w, e in zip(("operand", "result"), pair, strict=True)
    }
    return "changing (operand, result) afterwards: exp legal, error; pow error, legal; 10 * legal, legal"


@claim(
    "in-place-rewrites",
    "1.3",
    "Every in-place operation requires the implementation to rewrite the computational graph: the creator of all "
    "inputs is changed to the Function representing this operation.",
    "每个in-place操作都需要重写计算图，把所有输入的创建者改成代表该操作的Function。",
    "imprecise",
    "Only a recorded change rewrites anything, and only the history of the Tensor that is changed and of those that "
    "share its elements; under no_grad, as in an optimizer's step, nothing is rewritten.",
    "不精确：只有被记录的修改才改写历史，而且只改写被修改的Tensor以及与它共享元素的Tensor；在no_grad中（如优化器更新）什么"
    "都不改写。",
)
def in_place_rewrites() -> str:
    x = torch.ones(2, requires_grad=True) * 1.0
    other = torch.ones(2, requires_grad=True) * 1.0
    before, others = x.grad_fn, other.grad_fn
    with torch.no_grad():
        x.mul_(2)
    assert x.grad_fn is before
    x.mul_(other)
    assert x.grad_fn is not before
    assert other.grad_fn is others
    return "grad_fn after mul_ under no_grad: the same; after a recorded mul_: new; that of the other operand: the same"


@claim(
    "in-place-shared",
    "1.3",
    "In-place functions raise an error if the storage of modified inputs is referenced by any other Tensor.",
    "如果被修改的输入的存储被任何其他Tensor引用，in-place函数会报错。",
    "outdated",
    "It was so in PyTorch's first releases. Since then a write through a view rewrites the history of its base "
    "(CopySlices), and the other views find theirs from it. tape.in_place_views('error') gives the old rule.",
    "这是PyTorch最早版本的规则。后来通过视图的写入会改写基张量的历史（CopySlices），其他视图再由它重新生成。"
    "用tape.in_place_views('error')可以得到旧规则。",
)
def in_place_shared() -> str:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    base = x * 1.0
    row = base[0]
    row.mul_(10)
    assert base.grad_fn.name() == "torch::autograd::CopySlices"
    base.sum().backward()
    assert x.grad.tolist() == [10, 1]
    with tape.in_place_views("error"):
        base = x * 1.0
        row = base[0]
        assert "shared" in raised(lambda: row.mul_(10))
    return "base[0].mul_(10): the gradient of the sum is [10, 1]; under the old rule RuntimeError"


# --- 2. graphs, and symbol to symbol ----------------------------------------------------------------------------------


@claim(
    "rebuilding-costs",
    "2",
    "A dynamic graph has to be rebuilt in every iteration, which is some overhead for large networks.",
    "PyTorch的动态图在每次迭代中都需要重建，对大型网络来说有一定的开销。",
    "true",
    "A node is made per operation and per iteration. The cost is one of each operation, whatever the size of its "
    "arrays, so it matters for many small operations and vanishes for few large ones.",
    "成立：每次迭代每个算子都要新建一个节点。开销与数组大小无关，所以小算子多时明显，大算子少时可以忽略。",
)
def rebuilding_costs() -> str:
    x = torch.ones(2, requires_grad=True)

    def step() -> Any:
        y = x
        for _ in range(5):
            y = y * 2.0
        return y

    first, second = step(), step()
    assert first.grad_fn is not second.grad_fn
    made = second.grad_fn.sequence_nr - first.grad_fn.sequence_nr
    assert made == 5
    function = graph.grad(lambda v: jnp.sum(v * 2.0))
    assert equal(function(jnp.ones(2)), [2, 2])
    return f"nodes made by one more iteration of 5 operations: {made}"


@claim(
    "graph-definition",
    "2.1",
    "Each node of a computational graph is a variable, and an edge runs from x to y if y is computed from x by an "
    "operator; each operator returns a single variable; frameworks name the nodes by their operators.",
    "计算图中每个节点表示一个变量；如果y由x经过一个算子得到，就有一条从x到y的有向边；假设每个算子只返回单个输出变量；框架"
    "中节点用op的名称表示。",
    "imprecise",
    "These are two kinds of graph. In the Deep Learning book nodes are variables; in PyTorch, TensorFlow and Theano "
    "nodes are operations, Tensors run along the edges, and an operation may have several outputs, which is why an "
    "edge is a pair (node, output_nr).",
    "不精确：这里混合了两种图。《Deep Learning》中节点是变量；而PyTorch、TensorFlow、Theano中节点是算子，Tensor在边上流"
    "动，一个算子可以有多个输出，所以边是（节点, 输出号）的二元组。",
)
def graph_definition() -> str:
    x = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
    y = tnp.stack([x, x * 2.0])
    values, vectors = tape.apply(jnp.linalg.eigh, y @ y.mT)
    assert values.grad_fn is vectors.grad_fn
    assert (values.output_nr, vectors.output_nr) == (0, 1)
    sum_of_both = values.sum() + vectors.sum()
    ((left, _), (right, _)) = sum_of_both.grad_fn.next_functions
    edges = left.next_functions + right.next_functions
    assert edges == ((values.grad_fn, 0), (values.grad_fn, 1))
    return "eigenvalues and eigenvectors are outputs 0 and 1 of one node; edges lead to (node, 0) and (node, 1)"


@claim(
    "who-is-s2v",
    "2.2",
    "Symbol-to-value is the method of the dynamic frameworks, PyTorch and its predecessors Torch and Caffe; "
    "symbol-to-symbol is that of the static ones, Theano and TensorFlow.",
    "Symbol2Value是PyTorch及其前身Torch和Caffe采用的方法（动态图）；Symbol2Symbol是Theano和TensorFlow采用的方法（静态图）。",
    "imprecise",
    "These are two axes. Caffe and Torch7 are static and symbol-to-value; PyTorch is dynamic and, with "
    "create_graph=True, symbol-to-symbol. All four corners have inhabitants, and all four work here.",
    "不精确：这是两个独立的维度。Caffe和Torch7是静态图+符号到数值；PyTorch是动态图，而create_graph=True时就是符号到符号。"
    "四个角落都有实际系统，这里四种都能运行。",
)
def who_is_s2v() -> str:
    def f(x: Any) -> Any:
        return tnp.sum(tnp.sin(x) * x)

    point = np.array([0.5, 1.0], np.float32)
    x = torch.tensor(point, requires_grad=True)
    f(x).backward()
    (recorded,) = torch.autograd.grad(f(x), x, create_graph=True)
    traced = graph.trace(f, point)
    _, (by_value,) = graph.backprop(traced, [point])
    by_symbols = graph.grad(f)(point)
    assert recorded.grad_fn is not None
    assert x.grad.grad_fn is None
    assert all(
        equal(answer, np.cos(point) * point + np.sin(point)) for answer in (x.grad, recorded, by_value, by_symbols)
    )
    return "dynamic and static, by value and by symbols: four gradients, all equal"


@claim(
    "s2s-adds-nodes",
    "2.2",
    "Symbol-to-symbol adds nodes to the graph that describe the derivative in the language of the original expression.",
    "Symbol2Symbol为计算图添加额外的节点，用与原始表达式相同的语言来描述导数。",
    "true",
    "The same graph has more operations afterwards, each a plain operation that can be run, printed and "
    "differentiated.",
    "成立：同一张图里多出了一些普通算子，可以运行、打印，也可以继续求导。",
)
def s2s_adds_nodes() -> str:
    with symbolic.Graph().as_default() as g, symbolic.Session() as session:
        x = symbolic.placeholder(np.float32, name="x")
        y = tnp.sin(x) * x
        before = len(g.operations)
        (dy,) = symbolic.gradients(y, x)
        added = len(g.operations) - before
        assert added > 0
        assert dy.op in g.operations
        assert equal(session.run(dy, {x: 1.0}), np.cos(1) + np.sin(1))
    return f"operations: {before} before gradients(), {before + added} after"


@claim(
    "s2s-higher-order",
    "2.2",
    "Since the derivative is just another graph, back-propagation can be run again to get higher derivatives: that is "
    "the advantage of symbol-to-symbol.",
    "因为导数只是另一张计算图，我们可以再次运行反向传播得到更高阶的导数，这是符号到符号方法的主要优点。",
    "imprecise",
    "What counts is whether the backward pass is made of operations that have rules and are recorded, not whether the "
    "graph is static: create_graph=True goes to any order, and TensorFlow's max-pooling had no second derivative "
    "though everything was symbolic.",
    "不精确：关键在于反向过程是否由有导数规则且被记录的算子组成，而不在于图是否静态。create_graph=True可以求任意阶；"
    "而TensorFlow虽是符号式，max-pooling却没有二阶导数。",
)
def s2s_higher_order() -> str:
    x = torch.tensor(0.5, requires_grad=True)
    y, orders = x.exp() * x, []
    for _ in range(3):
        (y,) = torch.autograd.grad(y, x, create_graph=True)
        orders.append(y.item() / np.exp(0.5))
    assert np.allclose(orders, [1.5, 2.5, 3.5], rtol=1e-5)
    with symbolic.Graph().as_default():
        s = symbolic.placeholder(np.float32, name="s")

        def outside(v: Any) -> Any:
            return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), np.float32), v)

        assert "No gradient defined" in raised(lambda: symbolic.gradients(symbolic.apply(outside, s), s))
    return "dynamic, orders 1 to 3 of x eˣ: right; static, an operation without a rule: NoGradient"


@claim(
    "strip",
    "2.2",
    "This is also why the training nodes of a TensorFlow model can be removed for deployment.",
    "这也就是为什么TensorFlow的模型在部署时可以去掉训练节点的原因。",
    "imprecise",
    "In symbol-to-symbol removal is needed, since derivative and update stand in the same graph as the model. By value "
    "there is nothing to remove: the forward program never held them.",
    "不精确：符号到符号把导数和更新加进了同一张图，所以才需要去掉；符号到数值的方法从来没有把它们放进前向程序，因此没有什"
    "么可去。",
)
def strip() -> str:
    with symbolic.Graph().as_default() as g, symbolic.Session() as session:
        x = symbolic.placeholder(np.float32, (2,), name="x")
        w = symbolic.variable(np.ones(2, np.float32), name="w")
        out = tnp.sum(x * w)
        model = len(g.operations)
        w.assign_sub(0.1 * symbolic.gradients(out, w)[0])
        session.run(symbolic.global_variables_initializer())
        assert equal(session.run(out, {x: [1.0, 2.0]}), 3.0)
    with torch.no_grad():
        y = (torch.ones(2) * torch.ones(2, requires_grad=True)).sum()
    assert y.grad_fn is None
    return (
        f"static: {len(g.operations) - model} of {len(g.operations)} operations only train; dynamic, no_grad: 0 nodes"
    )


@claim(
    "once-and-for-all",
    "2.2",
    "This is the superiority of static graphs: once and for all.",
    "这也是TensorFlow这种静态图的优越之处——一劳永逸。",
    "imprecise",
    "Built once, a graph holds for what it was built for: a branch or a loop over values must be a node of it, and "
    "another shape may need another trace. What is baked in silently is the danger.",
    "不精确：图只对建图时的假设有效。依赖数值的分支和循环必须成为图中的节点，形状改变可能需要重新追踪；被默默固定下来的东"
    "西才是危险所在。",
)
def once_and_for_all() -> str:
    def f(x: Any) -> Any:
        return x * 2 if x > 0 else x

    assert "traced" in raised(lambda: graph.trace(f, jnp.float32(1)))
    x = torch.tensor(-1.0, requires_grad=True)
    f(x).backward()
    assert x.grad.item() == 1
    return "a Python branch over a value: the static trace raises, the dynamic graph differentiates it"


@claim(
    "same-computation",
    "2.2",
    "Symbol-to-value performs exactly the computations that are done in the graph built by symbol-to-symbol; the key "
    "difference is that it does not expose the graph.",
    "符号到数值的方法执行了与符号到符号的方法中构建图的过程中完全相同的计算，关键的区别是它不会显示出计算图。",
    "true",
    "The rules are called with the same primitives and shapes, once by value and once to emit equations. It holds "
    "before optimisation: a compiler may then change the graph, which it never sees by value.",
    "成立：两种方法以同样的原语和形状调用同样的规则，一次得到数值，一次得到方程。这是优化之前；之后编译器可以改写图，而按值"
    "计算时它看不到图。",
)
def same_computation() -> str:
    def f(x: Any) -> Any:
        return tnp.sum(tnp.tanh(x) * tnp.exp(x))

    point = np.array([0.5, 1.0], np.float32)
    x = torch.tensor(point, requires_grad=True)
    with tape.granularity("primitive"):
        y = f(x)
        with rules.recording() as by_value:
            y.backward()
    with rules.recording() as by_symbols:
        graph.trace(graph.grad(f), point)
    values = sorted(call.primitive for call in by_value)
    symbols = sorted(call.primitive for call in by_symbols)
    assert values == symbols, (values, symbols)
    assert equal(x.grad, graph.grad(f)(point))
    return f"rules called by value and to emit equations: {len(values)} and {len(symbols)}, of the same primitives"


# --- 0 and 3. why zero_grad -------------------------------------------------------------------------------------------


@claim(
    "optimizer-accumulates",
    "3",
    "PyTorch's optimizer accumulates gradients by default, so it has to be cleared for the next batch.",
    "PyTorch的optimizer默认会自动对梯度进行accumulate，所以对下一个batch需要对optimizer进行清空操作。",
    "imprecise",
    "backward() accumulates, into the .grad of leaves, whether or not there is an optimizer. The optimizer only reads "
    "them; zero_grad() is there because it knows the parameters. Since 2.0 it sets .grad to None instead of zeros.",
    "不精确：累加的是backward()，写入叶子的.grad，与有没有optimizer无关；optimizer只是读取它们，zero_grad()放在那里只是因为"
    "它知道有哪些参数。2.0起默认把.grad设为None而不是0。",
)
def optimizer_accumulates() -> str:
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    for _ in range(3):
        (w * w).sum().backward()
    assert w.grad.tolist() == [6, 12]
    return "three calls of backward(), no optimizer: .grad is three times the gradient"


def zero_grad_experiment() -> dict[tuple[str, str], list[float]]:
    """The second gradient over the first, in {rebuild, retain} x {accumulate, return}, with nothing cleared between.

    ``rebuild`` makes the graph anew for each gradient; ``retain`` walks one graph twice, as a static system does.
    """
    found = {}
    for graphs in ("rebuild", "retain"):
        for way in ("accumulate", "return"):
            w = torch.tensor(3.0, requires_grad=True)
            loss, seen = None, []
            for _ in range(2):
                if loss is None or graphs == "rebuild":
                    loss = w * w
                if way == "accumulate":
                    loss.backward(retain_graph=graphs == "retain")
                    seen.append(w.grad.item())
                else:
                    (gradient,) = torch.autograd.grad(loss, w, retain_graph=graphs == "retain")
                    seen.append(gradient.item())
            found[graphs, way] = seen
    return found


@claim(
    "zero-grad-because-dynamic",
    "0, 3",
    "Why is the optimizer cleared in every iteration? Because the graph is dynamic and is rebuilt after every "
    "iteration.",
    "为什么在每次迭代时optimizer都要清空？因为PyTorch是动态图，动态图在每次iteration后都需要重建图本身。",
    "imprecise",
    "Rebuilding is not the cause: of {rebuild, retain the graph} x {accumulate, return the gradient} only the second "
    "axis matters. Torch7 and Caffe have static graphs and must clear (zeroGradParameters, ClearParamDiffs); "
    "functional interfaces (autograd.grad, T.grad, jax.grad) never need to, dynamic or not.",
    "重建图不是原因。在{重建, 保留图} x {累加, 返回梯度}的2x2实验中,只有第二个维度起作用。Torch7和Caffe是静态图,同样必"
    "须清零（zeroGradParameters、ClearParamDiffs）；而函数式接口（autograd.grad、T.grad、jax.grad）无论动态静态都不需要清零"
    "。",
)
def zero_grad_because_dynamic() -> str:
    found = zero_grad_experiment()
    assert found == {
        ("rebuild", "accumulate"): [6, 12],
        ("rebuild", "return"): [6, 6],
        ("retain", "accumulate"): [6, 12],
        ("retain", "return"): [6, 6],
    }
    cells = [f"{graphs} + {way}: {first:g}, {second:g}" for (graphs, way), (first, second) in found.items()]
    return "first and second gradient, nothing cleared: " + "; ".join(cells)


@claim(
    "item",
    "3",
    "Statistics of the training are kept by running_loss += loss.item().",
    "训练的统计量用 running_loss += loss.item() 累计。",
    "true",
    "And it has to be item(): running_loss += loss would keep the graph of every iteration alive.",
    "成立，而且必须用item()：如果写running_loss += loss，每次迭代的图都会一直留在内存里。",
)
def item() -> str:
    w, total, statistics = torch.ones(2, requires_grad=True), 0.0, 0.0
    for _ in range(10):
        loss = (w * w).sum()
        loss.backward()
        total += loss
        statistics += loss.item()
    nodes = tape.stats(total).nodes
    assert nodes == 10 * tape.stats(loss).nodes + 10  # and the additions
    assert statistics == total.item() == 20
    return f"nodes held after 10 iterations: {nodes} by the sum of the losses, none by the sum of their items"


# --- the page ---------------------------------------------------------------------------------------------------------

PAGE = """\
# The note, claim by claim / 逐条验证

What the note {note} says about autograd, whether it holds, and how one can tell. Each verdict is established by running
its check: *measured* is what the check has found. Made by `python -m twograd.lore`; `twograd claims` prints it.

这篇笔记的每一条论断、结论以及依据。每个结论都由程序运行得出；Measured一行是实验结果。

| verdict | 结论 | claims |
|---|---|---|
{counts}
"""


def page() -> str:
    """``docs/claims.md``."""
    counts = "\n".join(
        f"| {verdict} | {VERDICTS_ZH[verdict]} | {', '.join(f'`{c.name}`' for c in CLAIMS if c.verdict == verdict)} |"
        for verdict in VERDICTS_ZH
    )
    parts = [PAGE.format(note=NOTE, counts=counts)]
    for c in CLAIMS:
        parts.append(
            f"## `{c.name}` ({c.section}): {c.verdict} / {VERDICTS_ZH[c.verdict]}\n\n"
            f"> {c.text}\n>\n> {c.text_zh}\n\n{c.why}\n\n{c.why_zh}\n\nMeasured: {c.check()}.\n"
        )
    return "\n".join(parts)
