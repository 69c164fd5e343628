"""What nodes are called, beside PyTorch."""

import pytest

from twograd import tape

OPS = {
    "x + y": lambda x, y, v: x + y,
    "x + 1": lambda x, y, v: x + 1,
    "1 + x": lambda x, y, v: 1 + x,
    "x - y": lambda x, y, v: x - y,
    "x * y": lambda x, y, v: x * y,
    "x * 2": lambda x, y, v: x * 2,
    "x / y": lambda x, y, v: x / y,
    "x / 2": lambda x, y, v: x / 2,
    "-x": lambda x, y, v: -x,
    "x ** 2": lambda x, y, v: x**2,
    "x ** 2.5": lambda x, y, v: x**2.5,
    "x ** y": lambda x, y, v: x**y,
    "2 ** x": lambda x, y, v: 2**x,
    "x @ y": lambda x, y, v: x @ y,
    "x @ v": lambda x, y, v: x @ v,
    "v @ v": lambda x, y, v: v @ v,
    "v.dot(v)": lambda x, y, v: v.dot(v),
    "x.mm(y)": lambda x, y, v: x.mm(y),
    "x.mv(v)": lambda x, y, v: x.mv(v),
    "x.matmul(y)": lambda x, y, v: x.matmul(y),
    "x.T": lambda x, y, v: x.T,
    "x.t()": lambda x, y, v: x.t(),
    "x.mT": lambda x, y, v: x.mT,
    "x.transpose(0, 1)": lambda x, y, v: x.transpose(0, 1),
    "x.permute(1, 0)": lambda x, y, v: x.permute(1, 0),
    "x.reshape(4)": lambda x, y, v: x.reshape(4),
    "x.view(4)": lambda x, y, v: x.view(4),
    "x.flatten()": lambda x, y, v: x.flatten(),
    "x.squeeze()": lambda x, y, v: x[:, :1].squeeze(),
    "x.squeeze(1)": lambda x, y, v: x[:, :1].squeeze(1),
    "x.unsqueeze(0)": lambda x, y, v: x.unsqueeze(0),
    "v.expand(3, 2)": lambda x, y, v: v.expand(3, 2),
    "x.repeat(2, 1)": lambda x, y, v: x.repeat(2, 1),
    "x.flip(0)": lambda x, y, v: x.flip(0),
    "x[0]": lambda x, y, v: x[0],
    "x[-1]": lambda x, y, v: x[-1],
    "x[0, 1]": lambda x, y, v: x[0, 1],
    "x[:, 1]": lambda x, y, v: x[:, 1],
    "x[1:]": lambda x, y, v: x[1:],
    "x[0, 1:]": lambda x, y, v: x[0, 1:],
    "x[1:, 0]": lambda x, y, v: x[1:, 0],
    "x[:, ::2]": lambda x, y, v: x[:, ::2],
    "x[None]": lambda x, y, v: x[None],
    "x[..., 0]": lambda x, y, v: x[..., 0],
    "x[[0, 1]]": lambda x, y, v: x[[0, 1]],
    "x[x > 0]": lambda x, y, v: x[x > 0],
    "x.select(1, 0)": lambda x, y, v: x.select(1, 0),
    "x.narrow(0, 0, 1)": lambda x, y, v: x.narrow(0, 0, 1),
    "x.diagonal()": lambda x, y, v: x.diagonal(),
    "x.sum()": lambda x, y, v: x.sum(),
    "x.sum(0)": lambda x, y, v: x.sum(0),
    "x.sum(0, keepdim=True)": lambda x, y, v: x.sum(0, keepdim=True),
    "x.mean()": lambda x, y, v: x.mean(),
    "x.mean(1)": lambda x, y, v: x.mean(1),
    "x.prod()": lambda x, y, v: x.prod(),
    "x.prod(1)": lambda x, y, v: x.prod(1),
    "x.std()": lambda x, y, v: x.std(),
    "x.var(0)": lambda x, y, v: x.var(0),
    "x.norm()": lambda x, y, v: x.norm(),
    "x.max()": lambda x, y, v: x.max(),
    "x.max(1)": lambda x, y, v: x.max(1)[0],
    "x.min()": lambda x, y, v: x.min(),
    "x.min(1)": lambda x, y, v: x.min(1)[0],
    "x.amax(1)": lambda x, y, v: x.amax(1),
    "x.amin(1)": lambda x, y, v: x.amin(1),
    "x.logsumexp(1)": lambda x, y, v: x.logsumexp(1),
    "x.maximum(y)": lambda x, y, v: x.maximum(y),
    "x.minimum(y)": lambda x, y, v: x.minimum(y),
    "x.cumsum(0)": lambda x, y, v: x.cumsum(0),
    "x.cumprod(0)": lambda x, y, v: x.cumprod(0),
    "x.softmax(1)": lambda x, y, v: x.softmax(1),
    "x.log_softmax(1)": lambda x, y, v: x.log_softmax(1),
    "x.sort(1)": lambda x, y, v: x.sort(1)[0],
    "x.clamp(0, 1)": lambda x, y, v: x.clamp(0, 1),
    "x.where(x > 1, y)": lambda x, y, v: x.where(x > 1, y),
    "x.masked_fill(x > 1, 0)": lambda x, y, v: x.masked_fill(x > 1, 0.0),
    "x.clone()": lambda x, y, v: x.clone(),
    "v.outer(v)": lambda x, y, v: v.outer(v),
    "x.atan2(y)": lambda x, y, v: x.atan2(y),
    "x.half()": lambda x, y, v: x.half(),
    "x.clone().mul_(2)": lambda x, y, v: x.clone().mul_(2),
    "x.clone()[0].mul_(2)": lambda x, y, v: (lambda z: (z[0].mul_(2), z)[1])(x.clone()),
    **{
        f"x.{name}()": lambda x, y, v, name=name: getattr(x, name)()
        for name in [
            "abs",
            "acos",
            "asin",
            "atan",
            "ceil",
            "cos",
            "cosh",
            "erf",
            "exp",
            "exp2",
            "expm1",
            "floor",
            "log",
            "log10",
            "log1p",
            "log2",
            "neg",
            "reciprocal",
            "relu",
            "round",
            "rsqrt",
            "sigmoid",
            "sign",
            "sin",
            "sinh",
            "sqrt",
            "square",
            "tan",
            "tanh",
            "trunc",
        ]
    },
}


def names(m):
    x = m.tensor([[0.3, 0.6], [0.2, 0.9]], requires_grad=True)
    y = m.tensor([[0.5, 0.7], [0.4, 0.1]], requires_grad=True)
    v = m.tensor([0.25, 0.75], requires_grad=True)
    found = {}
    for label, op in OPS.items():
        node = op(x, y, v).grad_fn
        found[label] = (node.name(), type(node).__name__, len(node.next_functions))
    return found


def test_names_are_pytorchs():
    torch = pytest.importorskip("torch")
    ours, theirs = names(tape), names(torch)
    different = {label: (ours[label], theirs[label]) for label in OPS if ours[label] != theirs[label]}
    assert different == {}
