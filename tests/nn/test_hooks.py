"""Hooks of Modules: programs run with the tape's nn and with PyTorch's, whose results and errors must be the same."""

import warnings

import numpy as np
import pytest

from twograd import tape


def outcome(program, torch):
    """What ``program(torch)`` returns and logs, or its error."""
    log = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of parts of itself
            program(torch, log)
    except Exception as error:
        log.append((type(error).__name__, str(error)))
    return log


def shown(grads):
    return [None if grad is None else grad.detach().numpy().round(4).tolist() for grad in grads]


def linear(torch, inputs=2, outputs=2):
    module = torch.nn.Linear(inputs, outputs)
    with torch.no_grad():
        module.weight.copy_(torch.arange(float(inputs * outputs)).reshape(outputs, inputs))
        module.bias.fill_(0.5)
    return module


def operand(torch, *, grad=True):
    return torch.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=grad)


def operands_and_results(torch, log):
    module, x = linear(torch), operand(torch)
    module.register_forward_pre_hook(lambda m, args: log.append(str(shown(args))))
    module.register_forward_pre_hook(lambda m, args: args[0] * 2)
    module.register_forward_hook(lambda m, args, out: log.append(str(shown([*args, out]))))
    module.register_forward_hook(lambda m, args, out: out + 1)
    log.append(module(x).detach().tolist())


def keywords_and_order(torch, log):
    class Scaled(torch.nn.Module):
        def forward(self, x, *, by=1.0):
            return x * by

    module, x = Scaled(), operand(torch)
    module.register_forward_pre_hook(lambda m, args: log.append("second"))
    module.register_forward_pre_hook(lambda m, args: log.append("first"), prepend=True)
    module.register_forward_pre_hook(lambda m, args, kwargs: (args, {"by": kwargs["by"] * 2}), with_kwargs=True)
    module.register_forward_hook(lambda m, args, kwargs, out: log.append(str(kwargs)), with_kwargs=True)
    module.register_forward_hook(lambda m, args, out: log.append("before that"), prepend=True)
    log.append(module(x, by=3.0).detach().tolist())
    module.register_forward_pre_hook(lambda m, args, kwargs: args, with_kwargs=True)
    module(x, by=3.0)


def gradients_at_both_ends(torch, log):
    module, x = linear(torch), operand(torch)
    module.register_full_backward_pre_hook(lambda m, given: log.append("outputs " + str(shown(given))))
    module.register_full_backward_hook(lambda m, ins, outs: log.append(str([shown(ins), shown(outs)])))
    (module(x) ** 2).sum().backward()
    log += [x.grad.tolist(), module.weight.grad.tolist()]


def gradients_replaced(torch, log):
    module, x = linear(torch), operand(torch)
    module.register_full_backward_pre_hook(lambda m, outs: (outs[0] * 10,))
    first = module.register_full_backward_hook(lambda m, ins, outs: (ins[0] + 1,))
    module.register_full_backward_hook(lambda m, ins, outs: log.append(str([shown(ins), shown(outs)])))
    module.register_full_backward_hook(lambda m, ins, outs: log.append("first"), prepend=True)
    module(x).sum().backward()
    log += [x.grad.tolist(), module.weight.grad.tolist()]
    first.remove()
    module(x).sum().backward()
    log.append(x.grad.tolist())


def several_operands_and_results(torch, log):
    class Two(torch.nn.Module):
        def forward(self, x, y, n):
            return x * y, n, y + 1

    module, x, y = Two(), operand(torch), operand(torch) * 1
    module.register_full_backward_hook(lambda m, ins, outs: log.append(str([shown(ins), shown(outs)])))
    module(x, operand(torch), 3)[0].sum().backward()
    a, _, b = module(x, y, 3)
    (a * 2 + b).sum().backward()
    log.append(x.grad.tolist())


def nothing_that_requires_a_gradient_goes_in(torch, log):
    module = linear(torch)
    module.register_full_backward_hook(lambda m, ins, outs: log.append(str([shown(ins), shown(outs)])))
    module(operand(torch, grad=False)).sum().backward()
    with torch.no_grad():
        module(operand(torch))
    module.register_full_backward_hook(lambda m, ins, outs: (outs[0],))
    module(operand(torch, grad=False)).sum().backward()


def a_module_that_is_called_twice_and_nested(torch, log):
    inner = linear(torch)
    net, x = torch.nn.Sequential(inner, torch.nn.Tanh(), inner), operand(torch)
    inner.register_full_backward_hook(lambda m, ins, outs: log.append("inner " + str([shown(ins), shown(outs)])))
    net.register_full_backward_hook(lambda m, ins, outs: log.append("net " + str([shown(ins), shown(outs)])))
    net(x).sum().backward()
    log.append(inner.weight.grad.tolist())


def wrong_number(torch, log):
    module, x = linear(torch), operand(torch)
    module.register_full_backward_hook(lambda m, ins, outs: (ins[0], ins[0]))
    module(x).sum().backward()


def around_the_module(torch, log):
    class Leaking(torch.nn.Module):
        def forward(self, x):
            self.aside = x * 2
            return x + 1

    module, x = Leaking(), operand(torch)
    module.register_full_backward_hook(lambda m, ins, outs: log.append("called"))
    module(x)
    module.aside.sum().backward()
    log.append(x.grad.tolist())


def changed_in_place(torch, log):
    net = torch.nn.Sequential(linear(torch), torch.nn.ReLU(inplace=True))
    net[0].register_full_backward_hook(lambda m, ins, outs: None)
    net(operand(torch)).sum().backward()


PROGRAMS = [
    operands_and_results, keywords_and_order, gradients_at_both_ends, gradients_replaced, several_operands_and_results,
    nothing_that_requires_a_gradient_goes_in, a_module_that_is_called_twice_and_nested, wrong_number, around_the_module,
    changed_in_place,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_hooks_are_called_as_pytorchs(program):
    torch = pytest.importorskip("torch")
    ours, theirs = outcome(program, tape), outcome(program, torch)
    assert len(ours) == len(theirs), (ours, theirs)
    for a, b in zip(ours, theirs, strict=True):
        if isinstance(b, list):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        elif isinstance(b, tuple):
            assert a[0] == b[0]
            assert a[1].splitlines()[0] == b[1].splitlines()[0]
        else:
            assert a == b
    assert ours


def test_hooks_keep_no_graph_alive():
    import gc
    import weakref

    gc.disable()
    try:
        module = linear(tape)
        module.register_full_backward_hook(lambda m, ins, outs: None)
        out = module(operand(tape))
        node = weakref.ref(out.grad_fn)
        del out
        assert node() is None
    finally:
        gc.enable()
