"""Each exhibit gives the wrong number with its check off, and at least one check finds it."""

import numpy as np
import pytest

from twograd import cli
from twograd.lore import EXHIBITS
from twograd.lore.museum import POINT, SCALE, Disagreement, agree, differences, leaky

PASSES = {("tf-softmax-order-2", "gradcheck")}  # the first derivative is right: that is the point


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_the_gradient_is_wrong_and_a_check_says_so(exhibit):
    wrong, right = exhibit.wrong(), exhibit.right()
    assert np.shape(wrong) == np.shape(right)
    assert np.max(np.abs(wrong - right)) > 0.05
    outcomes = {check: exhibit.caught(check) for check in exhibit.checks}
    assert {(exhibit.name, check) for check, said in outcomes.items() if said is None} <= PASSES
    assert any(outcomes.values())
    if "version counter (the tape)" in outcomes:
        assert "modified by an inplace operation" in outcomes["version counter (the tape)"]


def test_differences_find_a_gradient_and_agree_tells_a_wrong_one():
    x = np.array([[0.5, 1.0], [2.0, -1.0]])
    np.testing.assert_allclose(differences(lambda x: x**3, x), 3 * x**2, rtol=1e-6)
    agree(3 * x**2, lambda x: x**3, x)
    with pytest.raises(Disagreement):
        agree(3 * x**2 * 1.01, lambda x: x**3, x)


# --- where the real systems are installed, the emulations are theirs --------------------------------------------------


def exhibit(name):
    return next(each for each in EXHIBITS if each.name == name)


def test_autograd_reads_the_changed_array():
    autograd = pytest.importorskip("autograd")
    scale = SCALE.copy()
    pull, _ = autograd.make_vjp(lambda x: x * scale)(np.ones(2))
    scale[:] = 0
    np.testing.assert_array_equal(pull(np.ones(2)), exhibit("autograd-numpy-buffer").wrong())


def test_torch_does_not_see_a_change_through_data():
    torch = pytest.importorskip("torch")
    x = torch.tensor(POINT, requires_grad=True)
    y = x.exp()
    y.data.mul_(10)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), exhibit("pytorch-data").wrong())


@pytest.mark.filterwarnings("ignore")
def test_torch_bakes_in_a_branch():
    torch = pytest.importorskip("torch")
    traced = torch.jit.trace(leaky, (torch.tensor(1.0),), check_trace=False)
    x = torch.tensor(-2.0, requires_grad=True)
    traced(x).backward()
    assert x.grad.item() == exhibit("traced-branch").wrong()


def test_the_command(capsys):
    assert cli.main(["museum", "--color", "never", "caffe-in-place"]) == 0
    out = capsys.readouterr().out
    assert "Caffe, emulated: [0.3064, 0.0361, 0.2955]" in out
    assert "def caffe_backward" in out
    assert cli.main(["museum", "louvre"]) == 2
    assert "no exhibit is called louvre" in capsys.readouterr().err
