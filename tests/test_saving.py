"""Files of weights and checkpoints: what goes in comes out, others can read it, and a damaged one is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

import twograd
from twograd import nn, optim, tape
from twograd.saving import DamagedFile

SUFFIXES = [".npz", ".safetensors"]
TREE = {
    "net": {"0.weight": np.arange(6.0, dtype=np.float32).reshape(2, 3), "empty": np.zeros((0, 4), np.int32)},
    "half": np.asarray(jnp.arange(3, dtype=jnp.bfloat16)),
    "net.0": {"weight": np.float64(3.5)},
    "steps": [1, 2.5, float("inf"), None, True, "Grüße", (np.uint8(3),)],
    3: {},
}


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"saved{request.param}"


def same(a, b):
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "dtype"):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and a == b


def test_a_tree_comes_back_as_it_was(path):
    twograd.save(TREE, path)
    assert same(twograd.load(path), TREE)


def test_tensors_are_saved_without_their_history(path):
    x = tape.ones(2, requires_grad=True) * 2
    twograd.save({"x": x, "leaf": tape.zeros(1, requires_grad=True)}, path)
    assert twograd.load(path)["x"].tolist() == [2.0, 2.0]


def test_weights_go_to_pytorch_and_back(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    ours, theirs = nn.LSTM(3, 4), torch.nn.LSTM(3, 4)
    path = tmp_path / "weights.safetensors"
    twograd.save(ours.state_dict(), path)
    theirs.load_state_dict(load_file(path))
    x = np.ones((5, 2, 3), np.float32)
    np.testing.assert_allclose(
        ours(tape.tensor(x))[0].detach().numpy(), theirs(torch.tensor(x))[0].detach().numpy(), rtol=1e-5, atol=1e-6
    )
    other = torch.nn.LSTM(3, 4)
    save_file(other.state_dict(), path)
    ours.load_state_dict(twograd.load(path))
    np.testing.assert_array_equal(ours.weight_ih_l0.detach().numpy(), other.weight_ih_l0.detach().numpy())


def test_files_that_numpy_wrote_are_read_as_they_are(tmp_path):
    np.savez(tmp_path / "others.npz", a=np.ones(3), b=np.zeros(2, np.int32))
    found = twograd.load(tmp_path / "others.npz")
    assert found["a"].tolist() == [1, 1, 1]
    assert found["b"].dtype == np.int32


@pytest.mark.parametrize("where", ["cut", "changed", "text", "empty"])
def test_a_damaged_file_is_refused(path, where):
    twograd.save({"weight": np.zeros(1000, np.float32)}, path)
    content = bytearray(path.read_bytes())
    if where == "changed":
        content[len(content) // 2] ^= 1
    path.write_bytes({"cut": content[:-500], "changed": content, "text": b"weights", "empty": b""}[where])
    with pytest.raises(DamagedFile, match=rf"saved\{path.suffix}: "):
        twograd.load(path)


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "evil.npz", a=np.array([print], object))
    with pytest.raises(DamagedFile, match=r"is damaged, or no \.npz file"):
        twograd.load(tmp_path / "evil.npz")
    with pytest.raises(TypeError, match="cannot store an array of dtype object at a"):
        twograd.save({"a": np.array([print], object)}, tmp_path / "own.npz")


def test_what_cannot_be_stored_leaves_the_file_that_was_there(path):
    twograd.save({"a": np.ones(2)}, path)
    with pytest.raises(TypeError, match=r"cannot store function at b\.0"):
        twograd.save({"a": np.zeros(2), "b": [print_nothing]}, path)
    with pytest.raises(TypeError, match="keys are strings or integers, not float"):
        twograd.save({0.5: 1}, path)
    assert twograd.load(path)["a"].tolist() == [1, 1]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def print_nothing():
    pass


def test_the_suffix_says_the_format(tmp_path):
    for call in (lambda p: twograd.save({}, p), twograd.load):
        with pytest.raises(ValueError, match=r"\.npz or \.safetensors, not '\.pt'"):
            call(tmp_path / "weights.pt")


def test_training_goes_on_from_a_checkpoint_bit_for_bit(path):
    rng = np.random.default_rng(0)
    data = [(rng.standard_normal((8, 4)).astype(np.float32), rng.integers(3, size=8)) for _ in range(6)]

    def start():
        tape.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
        optimizer = optim.Adam(net.parameters(), lr=0.05)
        return net, optimizer, optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    def train(net, optimizer, schedule, batches):
        losses = []
        for x, y in batches:
            optimizer.zero_grad()
            loss = nn.CrossEntropyLoss()(net(tape.tensor(x)), tape.tensor(y))
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        return losses

    whole = start()
    expected = train(*whole, data)
    parts = start()
    train(*parts, data[:3])
    names = ("net", "optimizer", "schedule")
    twograd.save({name: part.state_dict() for name, part in zip(names, parts, strict=True)}, path)

    resumed = start()
    tape.manual_seed(1)
    for name, part in zip(names, resumed, strict=True):
        part.load_state_dict(twograd.load(path)[name])
    assert train(*resumed, data[3:]) == expected[3:]
    for a, b in zip(resumed[0].state_dict().values(), whole[0].state_dict().values(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
