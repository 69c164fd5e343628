"""In-place errors say who changed what, where, and which rule reads it; and offer the fixes that work, and no other."""

import contextlib
import linecache
import re

import numpy as np
import pytest

from tape.programs import program, step
from twograd import tape
from twograd.tape import replay
from twograd.tape.blame import ModifiedInPlace, Report
from twograd.tape.lines import place
from twograd.tape.modes import Watcher, mode, watched_by

LEVELS = pytest.mark.parametrize("level", ["op", "primitive"])


def blamed(forward, level="op", tried=True) -> tuple[ModifiedInPlace, Report, str]:
    """The error of differentiating what ``forward`` returns, its report, and its notes."""
    with tape.granularity(level), tape.explaining() if tried else contextlib.nullcontext():
        loss = forward()
        with pytest.raises(ModifiedInPlace) as caught:
            loss.backward()
    error = caught.value
    assert str(error).startswith("one of the variables needed for gradient computation has been modified by an inplace")
    return error, error.report, "\n".join(error.__notes__)


def kinds(report):
    return {fix.kind for fix in report.fixes if fix.works}


def codes(report):
    return [change.place.code for change in report.changes]


def leaf(*values):
    return tape.tensor(list(values), requires_grad=True)


# --- where a node was made --------------------------------------------------------------------------------------------


@LEVELS
def test_a_node_knows_the_line_that_made_it(level):
    with tape.granularity(level):
        x = leaf(1.0, 2.0)
        y = x * 3.0  # an operator
        z = y.softmax(dim=0)  # a method in several steps
        w = x + tape.apply(abs, z)  # a function
    for made, text in ((y, "an operator"), (z, "in several steps"), (w, "a function")):
        where = place(made.grad_fn.where)
        assert where.function == "test_a_node_knows_the_line_that_made_it"
        assert text in linecache.getline(__file__, where.line)
        assert str(where).startswith(__file__)


def test_a_node_of_a_derivative_stands_at_the_line_that_asked_for_it():
    x = leaf(1.0, 2.0)
    (slope,) = tape.autograd.grad((x**3).sum(), x, create_graph=True)
    assert "create_graph=True" in place(slope.grad_fn.where).code


def test_a_watched_thread_keeps_lines_too():
    with watched_by(Watcher()):
        y = leaf(1.0) * 2.0
    assert "leaf(1.0) * 2.0" in place(y.grad_fn.where).code


# --- what is said -----------------------------------------------------------------------------------------------------


@LEVELS
def test_the_victim_the_rule_and_the_line_that_changed_it(level):
    def forward():
        x = leaf(0.5, 1.0)
        y = x.exp()
        y.mul_(2)
        return y.sum()

    error, report, notes = blamed(forward, level)
    assert (report.victim, report.saved_as, report.versions) == ("ExpBackward0", "result 0", (0, 1))
    assert report.place.code == "y = x.exp()"
    assert codes(report) == ["y.mul_(2)"]
    assert [(change.op, change.sizes) for change in report.changes] == [("mul_", (2,))]
    (reader,) = report.readers
    assert (reader.primitive, reader.operand, reader.name) == ("exp", "x", "out")
    assert reader.signature == "x(ct, out)"
    assert "vjp(lax.exp_p" in reader.code
    assert "twograd/rules/elementwise.py" in notes
    assert report.aliases == ["y (forward)"] or report.aliases == []  # the function has returned
    assert "ExpBackward0, made at" in notes
    assert kinds(report) == {"clone", "out of place"} | ({"reorder"} & kinds(report))
    assert isinstance(error, RuntimeError)


def test_several_writes_through_views_and_aliases_are_told_version_by_version():
    x = leaf(0.5, 1.0)
    y = x.exp()
    first = y[0]
    cut = y.detach()
    with tape.explaining():
        y.neg()
        first.mul_(2)
        cut.add_(1)
        y[1] = 7.0
        y += 3
        loss = y.sum()
        with pytest.raises(ModifiedInPlace) as caught:
            loss.backward()
    report = caught.value.report
    assert report.versions == (0, 4)
    assert codes(report) == ["first.mul_(2)", "cut.add_(1)", "y[1] = 7.0", "y += 3"]
    assert [change.version for change in report.changes] == [0, 1, 2, 3]
    assert "through a view" in report.changes[0].op
    assert {name.partition(" ")[0] for name in report.aliases} == {"first", "cut", "y"}
    assert (
        "No fix was tried: it depends on a Tensor with a history that was recorded before" in caught.value.__notes__[-1]
    )


def test_only_the_last_changes_are_kept():
    x = leaf(0.5)
    y = x.exp()
    for _ in range(40):
        y.add_(1.0)
    with pytest.raises(ModifiedInPlace) as caught:
        y.sum().backward()
    assert "changed 40 times" in caught.value.__notes__[0]
    assert "(8 earlier changes are not kept)" in caught.value.__notes__[0]


def test_changes_before_it_was_saved_are_not_blamed():
    def forward():
        x = leaf(0.5, 1.0)
        y = x * 1.0
        y.mul_(2)
        z = y.square()
        y.mul_(3)
        return z.sum()

    _, report, _ = blamed(forward)
    assert report.versions == (1, 2)
    assert re.findall(r"version \d -> \d", str(report)) == ["version 1 -> 2"]


def test_where_nothing_was_watched_the_note_says_how_to_have_fixes_tried():
    _, report, notes = blamed(lambda: changed(leaf(1.0)), tried=False)
    assert report.fixes == []
    assert "with tape.explaining():" in notes


def changed(x):
    y = x.exp()
    y.mul_(2)
    return y.sum()


# --- fixes ------------------------------------------------------------------------------------------------------------


@LEVELS
def test_each_fix_is_offered_where_it_works(level):
    def read_later():  # the new value is used: it must be there before backward
        y = leaf(0.5, 1.0).exp()
        y.mul_(2)
        return y.sum()

    _, report, _ = blamed(read_later, level)
    assert kinds(report) == {"clone", "out of place"}
    outcomes = {fix.kind: fix.outcome for fix in report.fixes}
    assert outcomes["reorder"].startswith("the loss would be another")

    def not_read_later():
        y = leaf(0.5, 1.0) * 1.0
        z = y.square()
        y.mul_(2)
        return z.sum()

    assert kinds(blamed(not_read_later, level)[1]) == {"clone", "reorder", "out of place"}


def test_out_of_place_is_not_offered_where_another_name_reads_the_change():
    def forward():
        y = leaf(0.5, 1.0) * 1.0
        shown = y.view(2)
        z = y.square()
        y.mul_(2)
        return (z * shown).sum()

    _, report, notes = blamed(forward)
    assert kinds(report) == {"clone"}
    assert "- clone: hand a clone() to" in notes
    assert "z = y.square()" in notes.partition("- clone")[2]
    assert "Not a fix here, out of place: the loss would be another" in notes


@LEVELS
def test_a_write_through_a_view(level):
    def forward():
        y = leaf(0.5, 1.0).sigmoid()
        y[0].mul_(3)
        return (y * y).sum()

    _, report, _ = blamed(forward, level)
    assert "clone" in kinds(report)
    assert "out of place" not in kinds(report)  # the name of the view is nobody's


@LEVELS
def test_an_update_of_a_weight_between_two_walks(level):
    def forward():
        w = leaf(0.5, 1.0)
        loss = (w * w.sin()).sum()
        with tape.no_grad():
            w -= 0.1
        return loss

    _, report, notes = blamed(forward, level)
    assert kinds(report) == {"clone", "reorder"}
    assert "it is a leaf that is changed" in notes
    assert "do it after backward(): line" in notes
    assert notes.count("hand a clone() to") == 2  # sin and the product both saved it


def test_two_mistakes_are_mended_together():
    def forward():
        y = leaf(0.5, 1.0).exp()
        y.add_(1)
        z = y.square()
        y.add_(1)
        return z.sum() + y.sum()

    _, report, _ = blamed(forward)
    (clone,) = [fix for fix in report.fixes if fix.kind == "clone"]
    assert clone.works
    assert "y = leaf(0.5, 1.0).exp()" in clone.text
    assert "z = y.square()" in clone.text


def test_an_offered_fix_is_one_that_the_user_can_write():
    def forward(mended):
        x = leaf(0.5, 1.0)
        y = x.exp()
        y = y * 2 if mended == "out of place" else (y.clone() if mended == "clone" else y).mul_(2)
        y.sum().backward()
        return x.grad.tolist()

    for mended in ("clone", "out of place"):
        assert forward(mended) == pytest.approx((2 * np.exp([0.5, 1.0])).tolist())
    with pytest.raises(ModifiedInPlace):
        forward("")


def test_anomaly_detection_tries_fixes_too():
    """PyTorch's error asks for it, and then says no more than before."""
    with tape.autograd.set_detect_anomaly(True):
        loss = changed(leaf(1.0, 2.0))
        with (
            pytest.warns(UserWarning, match="Error detected in ExpBackward0"),
            pytest.raises(ModifiedInPlace) as caught,
        ):
            loss.backward()
    assert kinds(caught.value.report) == {"clone", "out of place"}
    assert mode.watchers == ()


def test_what_was_not_watched_is_not_replayed():
    early = leaf(0.5, 1.0).exp()
    _, report, notes = blamed(lambda: (early.mul_(2)).sum())
    assert report.fixes == []
    assert "No fix was tried" in notes

    def forward():
        x = leaf(0.5, 1.0)
        y = x.exp()
        x.data = tape.tensor([3.0, 3.0])
        z = (x * y).sum()
        y.mul_(2)
        return z

    assert "something changed that was not watched" in blamed(forward)[2]


def test_a_training_loop_is_forgotten_as_it_goes():
    w = leaf(0.5, 1.0)
    with tape.explaining():
        recording = mode.watchers[-1]
        sizes = []
        for _ in range(5):
            loss = (w * w).sum()
            loss.backward()
            with tape.no_grad():
                w -= 0.1 * w.grad
            sizes.append(len(recording.program.events))
    assert sizes[-1] == sizes[1]


def test_values_that_are_given_and_random_masks_are_replayed_as_they_were():
    def forward():
        x = leaf(0.5, 1.0)
        noise = tape.randn(2)
        y = (x * noise).tanh()
        with tape.no_grad():
            scale = y.abs().max()
        y.div_(scale)
        return (y * noise).sum()

    assert kinds(blamed(forward)[1]) == {"clone", "out of place"}


# --- random programs --------------------------------------------------------------------------------------------------


def walks(seed):
    """Differentiates each Tensor of a random program; what was recorded, and what the tape found (None: an error)."""
    leaves = [leaf(*row) for row in ([0.7, 1.1], [0.9, 1.4])]
    with tape.explaining():
        recording = mode.watchers[-1]
        env = [*leaves, leaves[0] * 1.0, leaves[1] * 2.0]
        for line in program(seed):
            if line[0] == "backward":
                continue
            with contextlib.suppress(RuntimeError, IndexError), tape.no_grad() if line[2] else contextlib.nullcontext():
                made = step(env, line, None, 0)
                if made is not None:
                    env.append(made)
        for x in env:
            with contextlib.suppress(RuntimeError):
                if not x.requires_grad or x.is_leaf:
                    continue
                for each in leaves:
                    each.grad = None
                try:
                    x.sum().backward(retain_graph=True)
                except ModifiedInPlace as error:
                    yield recording, leaves, error
                else:
                    yield recording, leaves, None


def check_random_programs(seeds):
    compared = offered = 0
    for seed in seeds:
        for recording, leaves, error in walks(seed):
            if error is not None:
                offered += len(kinds(error.report))
                assert "clone" in kinds(error.report), (seed, error.__notes__)
                continue
            roots, grads = replay.functional(recording.program)
            for found, value in zip(roots, recording.program.values, strict=True):
                np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)
            for each in leaves:
                key = recording._key_of(each)
                if key in grads:
                    grad = np.zeros(each.shape) if each.grad is None else each.grad.array
                    np.testing.assert_allclose(grads[key], grad, rtol=1e-4, atol=1e-5)
                    compared += 1
    assert compared > 2 * len(seeds)
    return offered


def test_the_functional_program_has_the_tapes_gradient():
    """The tape and ``jax.vjp`` of what was recorded share no derivative rule and no view."""
    check_random_programs(range(1))


@pytest.mark.slow
def test_many_random_programs():
    assert check_random_programs(range(100, 130)) > 10
