"""Random small programs with views, changes in place, detach, no_grad and hooks, for the tape and for PyTorch alike.

A program is a list of lines; each works on the Tensors made so far, ``env``, and may append one. Those with hooks
register them on Tensors and leaves (they scale a gradient, replace it, or only look at it), retain gradients, and save
some values packed.
"""

import contextlib
import os
import random

MANY = int(os.environ.get("TWOGRAD_PROGRAMS", "90"))  # that the slow tests run; compiling them is what takes time
UNARY = ("exp", "sin", "tanh", "sigmoid", "neg", "log", "sqrt", "cos", "square")
IN_PLACE = ("exp_", "sin_", "tanh_", "sigmoid_", "neg_", "cos_", "zero_", "square_")
BINARY = ("mul", "add", "sub")


HOOKED = {"hook": 4, "leaf hook": 1, "retain": 3, "unhook": 1, "backward": 2}


def program(seed, length=10, hooks=False):
    """The lines of a random program: pairs of a word and numbers that choose its operands."""
    draw = random.Random(seed)
    words = ["unary", "binary", "scale", "view", "in place", "binary in place", "set", "detach", "backward"]
    weights = [3, 3, 1, 7, 3, 4, 3, 1, 1]
    if hooks:
        words, weights = [*words, *HOOKED], [8, 8, 2, 5, 2, 3, 2, 1, 1, *HOOKED.values()]
    lines = []
    for _ in range(length):
        word = draw.choices(words, weights)[0]
        lines.append((word, [draw.randrange(1000) for _ in range(5)], draw.random() < 0.12))
    return lines


def viewed(x, a, b):
    """A view of ``x``, by its kind ``a`` and a number."""
    kinds = ["index", "slice", "reshape", "view", "squeeze", "unsqueeze", "narrow", "expand"]
    if x.ndim >= 2:
        kinds += ["t", "permute", "diagonal", "column", "row", "step", "unbind", "split", "chunk", "select"]
    kind = kinds[a % len(kinds)]
    n = x.shape[0] if x.ndim else 1
    if kind == "unsqueeze":
        return x.unsqueeze(b % (x.ndim + 1))
    if not x.ndim or n == 0:
        return x.view(1)
    return {
        "index": lambda: x[b % n],
        "slice": lambda: x[b % n :],
        "reshape": lambda: x.reshape(-1),
        "view": lambda: x.view(-1),
        "squeeze": x.squeeze,
        "narrow": lambda: x.narrow(0, 0, 1 + b % n),
        "expand": lambda: x.expand(*((2, *x.shape) if b % 2 else x.shape)),
        "t": lambda: x.transpose(0, 1),
        "permute": lambda: x.permute(*reversed(range(x.ndim))),
        "diagonal": x.diagonal,
        "column": lambda: x[:, b % x.shape[1]],
        "row": lambda: x[b % n, None],
        "step": lambda: x[::2, 1:],
        "unbind": lambda: x.unbind(0)[b % n],
        "split": lambda: x.split(1, 1)[b % x.shape[1]],
        "chunk": lambda: x.chunk(2)[0],
        "select": lambda: x.select(1, b % x.shape[1]),
    }[kind]()


def partner(env, x, a, b):
    """A Tensor of the shape of ``x``, or a number."""
    same = [y for y in env if tuple(y.shape) == tuple(x.shape)]
    return same[b % len(same)] if same and a % 4 else 0.5 + b % 3


class Hooks:
    """Registers hooks that write down the gradients which they are given."""

    def __init__(self):
        self.calls = []
        self.handles = []
        self.retaining = set()

    def register(self, x, number, how):
        """A hook of ``x`` that looks, scales or replaces."""

        def hook(grad):
            self.calls.append((number, listed(grad)))
            return [lambda: None, lambda: grad * 2.0, lambda: grad.clone().fill_(0.5), lambda: grad + 1.0][how % 4]()

        self.handles.append(x.register_hook(hook))

    def register_on_leaf(self, x, number, how):
        """A hook called with the leaf and its ``.grad``, which some of them double."""

        def hook(leaf):
            self.calls.append((number, listed(leaf.grad)))
            if how % 2:
                leaf.grad.mul_(2.0)

        self.handles.append(x.register_post_accumulate_grad_hook(hook))


def listed(x):
    return None if x is None else x.tolist()


def packing(torch, line):
    """Saves what the line saves as a copy, for some lines."""
    if line[1][4] % 3:
        return contextlib.nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t)


def step(env, line, hooks, number):
    """Runs one line; returns the new Tensor or None."""
    word, (a, b, c, d, _), _ = line
    x = env[a % len(env)]
    if word in ("in place", "binary in place", "set", "hook", "leaf hook", "retain"):
        x.grad_fn  # noqa: B018 # else PyTorch takes a view for a leaf if its base got its history by a change
    match word:
        case "unary":
            return getattr(x, UNARY[b % len(UNARY)])()
        case "binary":
            return getattr(x, BINARY[b % len(BINARY)])(partner(env, x, c, d))
        case "scale":
            return x**2 if b % 2 else x * 2.0
        case "view":
            return viewed(x, b, c)
        case "in place":
            getattr(x, IN_PLACE[b % len(IN_PLACE)])()
        case "binary in place":
            getattr(x, BINARY[b % len(BINARY)] + "_")(partner(env, x, c, d))
        case "set":
            y = x[b % x.shape[0]] if x.ndim else x
            x[(b % x.shape[0]) if x.ndim else ...] = partner(env, y, c, d)
        case "detach":
            return x.detach()
        case "hook":
            hooks.register(x, number, b)
        case "leaf hook":
            hooks.register_on_leaf(x, number, b)
        case "retain":
            x.retain_grad()
            hooks.retaining.add(a % len(env))
        case "unhook":
            if hooks.handles:
                hooks.handles[b % len(hooks.handles)].remove()
        case "backward":
            if x.requires_grad:
                x.sum().backward(retain_graph=True)
    return None


def run(torch, lines, with_hooks=False):
    """What can be seen of a program: per line shapes, versions and an error, at the end all values and gradients.

    The program goes on after an error, as a user at a prompt would.
    """
    seen = []
    leaves = [
        torch.tensor([[0.7, 1.1], [1.3, 0.4]], requires_grad=True),
        torch.tensor([0.9, 1.4], requires_grad=True),
        torch.tensor([[0.5, 0.8], [1.2, 0.6]]),
    ]
    env = [*leaves, leaves[0] * 1.0, leaves[1] * 2.0]

    def guarded(act):
        try:
            return act()
        except (RuntimeError, IndexError) as error:
            if "one of the variables needed" in str(error):
                for leaf in leaves:  # how much was accumulated before the error depends on the order of the walk
                    leaf.grad = None
            seen.append((type(error).__name__, words(str(error))))
            return None

    hooks = Hooks()
    for number, line in enumerate(lines):
        pack = packing(torch, line) if with_hooks else contextlib.nullcontext()
        with torch.no_grad() if line[2] else contextlib.nullcontext(), pack:
            made = guarded(lambda: step(env, line, hooks, number))  # noqa: B023 # called at once
        if made is not None:
            env.append(made)
        seen.append([(tuple(x.shape), x._version) for x in env])
    for x in env:
        guarded(lambda x=x: seen.append((x.requires_grad, x.grad_fn is not None, x.is_leaf)))
        guarded(lambda x=x: x.sum().backward(retain_graph=True) if x.requires_grad else None)
    values = [x.detach().tolist() for x in env]
    retained = [listed(env[i].grad) for i in sorted(hooks.retaining)]
    return seen, values, [listed(x.grad) for x in leaves], hooks.calls, retained


def words(text):
    """The part of an error's text that both have: the names of nodes differ where one op is made of others."""
    if "view" in text and "modified inplace" in text:
        return "refused" + " because of the base" * ("its base" in text)
    return text[:60]
