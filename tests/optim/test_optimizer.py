"""Optimisers and schedules against PyTorch's, step by step; and the same transformation inside a graph's step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from twograd import graph, nn, optim, tape

rng = np.random.default_rng(0)
FIRST = [rng.standard_normal((3, 2)).astype(np.float32), rng.standard_normal(4).astype(np.float32)]
GRADS = [[rng.standard_normal(w.shape).astype(np.float32) for w in FIRST] for _ in range(6)]

SETTINGS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.05}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.0, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.05, "alpha": 0.9, "momentum": 0.5, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.05, "centered": True, "eps": 1e-3}),
]


def tensors(module):
    return [module.tensor(w.copy()).requires_grad_() for w in FIRST]


def steps(module, optimizer, params, grads=GRADS, each=lambda i: None):
    for i, pair in enumerate(grads):
        optimizer.zero_grad()
        for param, grad in zip(params, pair, strict=True):
            param.grad = None if grad is None else module.tensor(grad)
        optimizer.step()
        each(i)
    return [param.detach().numpy() for param in params]


@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=str)
def test_updates_are_pytorchs(name, settings):
    torch = pytest.importorskip("torch")
    mine, theirs = tensors(tape), tensors(torch)
    a = steps(tape, getattr(optim, name)(mine, **settings), mine)
    b = steps(torch, getattr(torch.optim, name)(theirs, **settings), theirs)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "settings"), [("Adam", {"lr": 0.1}), ("SGD", {"lr": 0.1, "momentum": 0.9})])
def test_what_has_no_gradient_is_passed_over(name, settings):
    torch = pytest.importorskip("torch")
    grads = [[a, b if i % 2 else None] for i, (a, b) in enumerate(GRADS)]
    mine, theirs = tensors(tape), tensors(torch)
    a = steps(tape, getattr(optim, name)(mine, **settings), mine, grads)
    b = steps(torch, getattr(torch.optim, name)(theirs, **settings), theirs, grads)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_groups_have_settings_of_their_own():
    torch = pytest.importorskip("torch")
    results = []
    for module, library in ((tape, optim), (torch, torch.optim)):
        params = tensors(module)
        optimizer = library.SGD([{"params": params[:1], "lr": 0.5}], lr=0.1, momentum=0.5)
        optimizer.add_param_group({"params": params[1]})
        assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
        results.append(steps(module, optimizer, params))
    for x, y in zip(*results, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


SCHEDULES = {
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda epoch: 0.9**epoch),
    "StepLR": lambda s, o: s.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [1, 3], 0.3),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.7),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.25, total_iters=4),
    "ConstantLR": lambda s, o: s.ConstantLR(o, 0.5, 3),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 5, 0.01),
    "SequentialLR": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, total_iters=2), s.ExponentialLR(o, 0.5)], milestones=[2]
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_pytorchs(name):
    torch = pytest.importorskip("torch")
    rates = []
    for module, library in ((tape, optim), (torch, torch.optim)):
        params = tensors(module)
        optimizer = library.SGD([{"params": params[:1]}, {"params": params[1:], "lr": 0.3}], lr=0.1)
        schedule = SCHEDULES[name](library.lr_scheduler, optimizer)
        found = [schedule.get_last_lr()]
        steps(
            module, optimizer, params, each=lambda i, s=schedule, found=found: s.step() or found.append(s.get_last_lr())
        )
        rates.append(np.array(found, np.float64))
    np.testing.assert_allclose(*rates, rtol=1e-9)
    assert len(set(rates[0][:, 0])) > 1


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_plateau_lowers_the_rate_as_in_pytorch(mode):
    torch = pytest.importorskip("torch")
    metrics, rates = [1.0, 0.9, 0.95, 0.9, 0.93, 0.92, 0.5, 0.6, 0.7, 0.8, 0.9], []
    for module, library in ((tape, optim), (torch, torch.optim)):
        optimizer = library.SGD(tensors(module), lr=1.0)
        schedule = library.lr_scheduler.ReduceLROnPlateau(optimizer, mode, 0.5, patience=1, cooldown=1, min_lr=0.2)
        found = []
        for metric in metrics:
            schedule.step(metric)
            found.append(optimizer.param_groups[0]["lr"])
        rates.append(found)
    assert rates[0] == rates[1]
    assert rates[0][-1] < 1


def test_a_rate_that_changes_compiles_nothing(monkeypatch):
    params = tensors(tape)
    optimizer = optim.Adam(params)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    steps(tape, optimizer, params, GRADS[:2])
    traced = []
    monkeypatch.setattr(optim.Adam, "transform", lambda **settings: traced.append(settings))
    steps(tape, optimizer, params, GRADS[2:], each=lambda i: schedule.step())
    assert not traced


def test_training_resumes_bit_for_bit():
    whole = tensors(tape)
    optimizer = optim.Adam(whole, lr=0.1, weight_decay=0.1)
    schedule = optim.lr_scheduler.StepLR(optimizer, 2)
    expected = steps(tape, optimizer, whole, each=lambda i: schedule.step())

    params = tensors(tape)
    first = optim.Adam(params, lr=0.1, weight_decay=0.1)
    schedule = optim.lr_scheduler.StepLR(first, 2)
    steps(tape, first, params, GRADS[:3], each=lambda i: schedule.step())
    saved, rate = first.state_dict(), schedule.state_dict()
    steps(tape, first, params, GRADS[3:])  # what was saved is a copy

    second = [tape.tensor(w, requires_grad=True) for w in steps(tape, *resumable(), GRADS[:3])]
    resumed = optim.Adam(second, lr=7.0, weight_decay=0.3)
    resumed.load_state_dict(saved)
    schedule = optim.lr_scheduler.StepLR(resumed, 2, last_epoch=0)
    schedule.load_state_dict(rate)
    resumed.param_groups[0]["lr"] = saved["param_groups"][0]["lr"]
    found = steps(tape, resumed, second, GRADS[3:], each=lambda i: schedule.step())
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def resumable():
    params = tensors(tape)
    optimizer = optim.Adam(params, lr=0.1, weight_decay=0.1)
    schedule = optim.lr_scheduler.StepLR(optimizer, 2)
    step = optimizer.step
    optimizer.step = lambda: (step(), schedule.step())
    return optimizer, params


def test_states_that_do_not_fit_change_nothing():
    params = tensors(tape)
    optimizer = optim.Adam(params, lr=0.1)
    steps(tape, optimizer, params, GRADS[:1])
    saved = optimizer.state_dict()
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict({**saved, "param_groups": []})
    sgd = optim.SGD(params, lr=0.1)
    with pytest.raises(ValueError, match="does not fit SGD, whose state here is"):
        sgd.load_state_dict({"state": saved["state"], "param_groups": sgd.state_dict()["param_groups"]})
    assert not sgd.state


def test_a_closure_computes_the_loss_again():
    params = tensors(tape)
    optimizer = optim.SGD(params, lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = sum((p * p).sum() for p in params)
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(3)]
    assert losses == sorted(losses, reverse=True)


def test_an_update_is_a_change_in_place():
    params = tensors(tape)
    optimizer = optim.SGD(params, lr=0.1)
    params[0].grad = tape.tensor(GRADS[0][0])
    loss = (params[0] ** 2).sum()
    view, version = params[0].detach(), params[0]._version
    optimizer.step()
    assert params[0]._version == version + 1
    np.testing.assert_array_equal(view.numpy(), params[0].detach().numpy())
    with pytest.raises(RuntimeError, match="has been modified by an inplace operation"):
        loss.backward()


def test_the_memory_of_parameters_is_used_again_where_nobody_else_has_it():
    params = tensors(tape)
    optimizer = optim.SGD(params, lr=0.1)
    for param, grad in zip(params, GRADS[0], strict=True):
        param.grad = tape.tensor(grad)
    optimizer.step()
    place = params[0].array.unsafe_buffer_pointer()
    optimizer.step()
    assert params[0].array.unsafe_buffer_pointer() == place
    kept, shown = params[0].array, params[1].detach()
    values = np.array(kept)
    optimizer.step()
    np.testing.assert_array_equal(kept, values)
    np.testing.assert_array_equal(shown.numpy(), params[1].detach().numpy())


def test_numbers_have_the_width_of_the_mode():
    def stepped(dtype):
        param = tape.tensor(np.ones(2, dtype), requires_grad=True)
        param.grad = tape.tensor(np.ones(2, dtype))
        optim.SGD([param], lr=0.1).step()
        return param.detach().numpy()

    assert stepped(np.float32).tolist() == (np.ones(2, np.float32) - np.float32(0.1)).tolist()
    with jax.enable_x64(True):
        assert stepped(np.float64).tolist() == [0.9, 0.9]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda p: optim.SGD(p[0], lr=0.1), "should be an iterable of Tensors or dicts"),
        (lambda p: optim.SGD([], lr=0.1), "optimizer got an empty parameter list"),
        (lambda p: optim.SGD(["w"], lr=0.1), "can only optimize Tensors, but one of the params is str"),
        (lambda p: optim.SGD([p[0] * 2], lr=0.1), "can't optimize a non-leaf Tensor"),
        (lambda p: optim.SGD(p, lr=-0.1), "Invalid lr value: -0.1"),
        (lambda p: optim.SGD(p, lr=0.1, nesterov=True), "Nesterov momentum requires a momentum and zero dampening"),
        (lambda p: optim.Adam(p, betas=(0.9, 1.0)), "Invalid beta parameter at index 1: 1.0"),
        (lambda p: optim.Adam(p, amsgrad=True), "amsgrad is not supported"),
        (lambda p: optim.SGD([{"params": p, "momentun": 0.9}], lr=0.1), "SGD has no setting 'momentun'"),
        (lambda p: optim.SGD([*p, p[0]], lr=0.1), "more than one place of a parameter group"),
        (lambda p: optim.SGD([{"params": p}, {"params": p}], lr=0.1), "in more than one parameter group"),
        (lambda p: optim.lr_scheduler.StepLR(p, 2), "list is not an Optimizer"),
    ],
)
def test_wrong_arguments_are_refused(make, error):
    with pytest.raises((TypeError, ValueError, NotImplementedError), match=error):
        make(tensors(tape))


# --- one training, on the tape and as a graph's step ------------------------------------------------------------------


def test_the_same_transformation_in_a_compiled_step_trains_alike():
    tape.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    x, y = rng.standard_normal((16, 4)).astype(np.float32), rng.integers(3, size=16).astype(np.int32)
    params = {name: p.array for name, p in net.named_parameters()}
    transform = optim.AdamW.transform(lr=0.05)

    def loss(params):
        return nn.functional.cross_entropy(nn.functional_call(net, params, jnp.asarray(x)), y)

    @jax.jit
    def step(params, state):
        value, gradient = graph.value_and_grad(loss)(params)
        changes, state = transform.update(gradient, state, params)
        return optax.apply_updates(params, changes), state, value

    state, by_graph = transform.init(params), []
    for _ in range(10):
        params, state, value = step(params, state)
        by_graph.append(float(value))

    optimizer, by_tape = optim.AdamW(net.parameters(), lr=0.05), []
    for _ in range(10):
        optimizer.zero_grad()
        value = nn.CrossEntropyLoss()(net(tape.tensor(x)), tape.tensor(y))
        value.backward()
        optimizer.step()
        by_tape.append(value.item())
    np.testing.assert_allclose(by_tape, by_graph, rtol=1e-5)
    assert by_tape[-1] < by_tape[0] / 1.5
