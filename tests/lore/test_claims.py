"""The claims of the note: each verdict is established by running, and docs/claims.md says what was found."""

from pathlib import Path

import pytest

from twograd import cli
from twograd.lore import CLAIMS
from twograd.lore import claims as module

PAGE = Path(__file__).parents[2] / "docs" / "claims.md"


def test_each_claim_is_established_and_the_page_is_what_its_generator_makes():
    """Every check runs here, once: the page has what each of them measured."""
    assert module.page() == PAGE.read_text(encoding="utf-8"), "run: python -m twograd.lore > docs/claims.md"


def test_claims_are_complete():
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS) >= 18
    assert {claim.verdict for claim in CLAIMS} == {"true", "imprecise", "outdated"}
    for claim in CLAIMS:
        assert all((claim.text, claim.text_zh, claim.why, claim.why_zh, claim.section))
        assert any("\u4e00" <= letter <= "\u9fff" for letter in claim.text_zh)


def test_zero_grad_only_the_second_axis_matters():
    found = module.zero_grad_experiment()
    ratios = {cell: second / first for cell, (first, second) in found.items()}
    assert ratios == {
        ("rebuild", "accumulate"): 2,
        ("retain", "accumulate"): 2,
        ("rebuild", "return"): 1,
        ("retain", "return"): 1,
    }


def test_a_check_fails_where_the_tape_behaves_otherwise(monkeypatch):
    """A verdict is no text: with another tape it would be another."""
    monkeypatch.setattr(module.torch.Tensor, "mul_", lambda x, y: x)
    with pytest.raises(AssertionError):
        module.in_place_shared()
    with pytest.raises(AssertionError):
        module.in_place_rewrites()


@pytest.mark.parametrize(("lang", "words"), [("en", "imprecise"), ("zh", "不精确")])
def test_the_command(capsys, lang, words):
    assert cli.main(["claims", "--lang", lang, "--color", "never"]) == 0
    out = capsys.readouterr().out
    assert words in out
    assert "any-input" in out
