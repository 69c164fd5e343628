"""Files of weights and checkpoints: what goes in comes out, others can read it, and a damaged one is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import twograd
from twograd import data, graph, nn, optim, tape
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


def network():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))


class ByTape:
    """A training on the tape: Adam, a schedule, shuffled batches and dropout; ``parts`` is all of its state."""

    def __init__(self, rows, seed):
        tape.manual_seed(seed)
        self.net = network()
        self.optimizer = optim.Adam(self.net.parameters(), lr=0.05)
        self.schedule = optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        self.loader = data.DataLoader(rows, batch_size=8, shuffle=True)

    def losses(self, count):
        batches = iter(self.loader)
        for _ in range(count):
            batch = next(batches, None)
            if batch is None:
                batches = iter(self.loader)
                batch = next(batches)
            self.optimizer.zero_grad()
            loss = nn.CrossEntropyLoss()(self.net(batch[0]), batch[1])
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            yield loss.item()

    def save(self, path):
        parts = {"net": self.net, "optimizer": self.optimizer, "schedule": self.schedule, "loader": self.loader}
        states = {name: part.state_dict() for name, part in parts.items()}
        twograd.save({**states, "random": tape.get_rng_state()}, path)

    def load(self, path):
        saved = twograd.load(path)
        for name in ("net", "optimizer", "schedule", "loader"):
            getattr(self, name).load_state_dict(saved[name])
        tape.set_rng_state(tape.tensor(saved["random"]))

    def weights(self):
        return [value.numpy() for value in self.net.state_dict().values()]


class ByGraph:
    """The same as one compiled graph: parameters, buffers, optax's state and the key are a tree of arrays."""

    def __init__(self, rows, seed):
        tape.manual_seed(seed)
        net, self.loader = network(), data.DataLoader(rows, batch_size=8, shuffle=True)
        params = {name: p.array for name, p in net.named_parameters()}
        buffers = {name: b.array for name, b in net.named_buffers()}
        transform = optim.Adam.transform(lr=optax.exponential_decay(0.05, 1, 0.9))
        self.state = (params, buffers, transform.init(params), jax.random.PRNGKey(seed))

        def loss(params, buffers, key, x, y):
            scores, buffers = nn.functional_call(net, {**params, **buffers}, x, rng=key, mutable=True)
            return nn.functional.cross_entropy(scores, y), buffers

        @jax.jit
        def step(state, x, y):
            params, buffers, moments, key = state
            key, own = jax.random.split(key)
            (value, buffers), gradient = graph.value_and_grad(loss, has_aux=True)(params, buffers, own, x, y)
            changes, moments = transform.update(gradient, moments, params)
            return (optax.apply_updates(params, changes), buffers, moments, key), value

        self.step = step

    def losses(self, count):
        batches = itertools.chain.from_iterable(itertools.repeat(self.loader))
        for x, y in itertools.islice(batches, count):
            self.state, value = self.step(self.state, x.array, y.array)
            yield float(value)

    def save(self, path):
        twograd.save({"state": self.state, "loader": self.loader.state_dict()}, path)

    def load(self, path):
        saved = twograd.load(path, like={"state": self.state, "loader": self.loader.state_dict()})
        self.state = saved["state"]
        self.loader.load_state_dict(saved["loader"])

    def weights(self):
        return jax.tree.leaves(self.state)


@pytest.mark.parametrize("kind", [ByTape, ByGraph])
def test_training_goes_on_from_a_checkpoint_bit_for_bit(kind, path):
    rng = np.random.default_rng(0)
    rows = data.TensorDataset(rng.standard_normal((24, 4)).astype(np.float32), rng.integers(3, size=24))
    whole = kind(rows, seed=0)
    expected = list(whole.losses(9))  # three loops over the data
    first = kind(rows, seed=0)
    assert list(first.losses(4)) == expected[:4]
    first.save(path)
    resumed = kind(rows, seed=1)  # another's weights, order and dropout, until it is loaded
    resumed.load(path)
    assert list(resumed.losses(5)) == expected[4:]
    for a, b in zip(resumed.weights(), whole.weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_tree_is_loaded_with_the_types_of_another(path):
    params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
    state = optax.adam(0.1).init(params)
    twograd.save((params, state), path)
    loaded = twograd.load(path, like=(params, state))
    assert jax.tree.structure(loaded) == jax.tree.structure((params, state))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))
    with pytest.raises(ValueError, match=r"does not hold what `like` asks for; 1 arrays differ: 0\.w: float32\[2, 3\]"):
        twograd.load(path, like=({**params, "w": jnp.ones((3, 2))}, state))
    with pytest.raises(ValueError, match=r"0\.c: nothing, not float32\[3\]"):
        twograd.load(path, like=({"w": params["w"], "c": params["b"]}, state))
    with pytest.raises(ValueError, match="does not hold what `like` asks for"):
        twograd.load(path, like=(params, optax.sgd(0.1).init(params)))


def test_a_checkpoint_that_is_cut_off_leaves_the_one_before(path, monkeypatch):
    twograd.save({"a": np.ones(2)}, path)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        twograd.save({"a": np.zeros(2)}, path)
    assert twograd.load(path)["a"].tolist() == [1, 1]
    assert [file.name for file in path.parent.iterdir()] == [path.name]
