"""Whole scripts as PyTorch's users write them: the same with PyTorch and, after one changed import, with the tape."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.py"))
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?|nan|inf")


QUICK = ("linear_regression", "newton", "note_remarks", "tensors_at_the_prompt", "wgan_gp")


def parameters():
    for path in SCRIPTS:
        yield pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else [pytest.mark.slow])


@pytest.mark.parametrize("path", list(parameters()))
def test_script(path, tmp_path, capsys):
    pytest.importorskip("torch")
    theirs = runpy.run_path(str(path))["results"]
    their_text = capsys.readouterr().out
    source = path.read_text(encoding="utf-8")
    changed = re.sub(r"^import torch$", "import twograd.tape as torch", source, flags=re.M)
    changed = changed.replace("import torch.nn.functional as F", "import twograd.tape.nn.functional as F")
    changed = changed.replace("from torch import", "from twograd.tape import")
    assert changed != source
    copy = tmp_path / path.name
    copy.write_text(changed, encoding="utf-8")
    ours = runpy.run_path(str(copy))["results"]
    text = capsys.readouterr().out
    same(ours, theirs)
    alike(text, their_text)


def same(ours, theirs):
    if isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            same(mine, other)
        return
    values = [np.asarray(x.detach().numpy() if hasattr(x, "detach") else x) for x in (ours, theirs)]
    assert values[0].shape == values[1].shape
    np.testing.assert_allclose(*values, rtol=2e-4, atol=2e-5)
    assert getattr(ours, "requires_grad", None) == getattr(theirs, "requires_grad", None)
    assert getattr(ours, "is_leaf", None) == getattr(theirs, "is_leaf", None)


def alike(ours, theirs):
    """The same text, but for the last digits of numbers and the names of nodes."""
    ours, theirs = (re.sub(r"\w+Backward\d", "Backward", text) for text in (ours, theirs))
    assert NUMBER.sub("#", ours).splitlines() == NUMBER.sub("#", theirs).splitlines()
    numbers = [[float(n) for n in NUMBER.findall(text)] for text in (ours, theirs)]
    np.testing.assert_allclose(*numbers, rtol=2e-3, atol=2e-3)
