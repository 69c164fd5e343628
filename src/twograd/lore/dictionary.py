"""Finds what a pasted error means.

What flows in: an error's text as it was pasted, with its traceback, prompts, line wraps, its own numbers and shapes.
What flows out: the entries that fit, best first, or the nearest ones. Read :func:`explain`; the entries are in
``entries.py``.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

PREFIX = re.compile(
    r"^\s*(?:>+ |\|+ |│ ?|#+ |E {2,}|\[[^\]\n]{1,40}\][: ]+|[IWEF]\d{4} [^\]\n]{0,60}\] )*", re.MULTILINE
)
"""What tools put before a line: quotes, boxes, pytest, ranks, glog."""
PLACEHOLDER = re.compile(r"<[\w .-]+>")
NOT_WORDS = re.compile(r"[\W_]+")
LONGEST_GAP = 400  # characters that may stand in a place that differs from error to error
LONGEST = 1_000_000  # characters of a pasted text that are looked at, from its end: there the error stands
MIN_LIKENESS = 0.12


@dataclass(frozen=True, eq=False)
class Entry:
    """One error.

    ``texts`` are its wordings, verbatim, with ``<what>`` where numbers, shapes or names differ. ``raises`` is a minimal
    program that raises it here, as ``error`` (a warning is raised too), and ``fix`` the same program, right. ``here``
    is what the program says, where that is not one of the texts: an error of a system whose mechanism does not exist
    here, shown by the mistake that comes nearest to it, which ``likeness`` explains.
    """

    name: str
    system: str
    texts: tuple[str, ...]
    cause: str
    raises: Callable[[], Any]
    error: type[BaseException]
    fix: Callable[[], Any]
    remedy: str
    threads: tuple[str, ...] = ()
    here: str | None = None
    likeness: str = ""

    @functools.cached_property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(map(pattern, self.texts))

    @functools.cached_property
    def words(self) -> Counter[str]:
        return Counter(_words(" ".join(self.texts)))


@dataclass(frozen=True)
class Match:
    """An entry for a text: ``exact`` if one of its wordings is in it; else with a ``likeness`` up to 1, by words."""

    entry: Entry
    exact: bool
    likeness: float


def explain(text: str, entries: Sequence[Entry], nearest: int = 3) -> list[Match]:
    """The entries one of whose wordings occurs in ``text``; if there is none, up to ``nearest`` that share words.

    The wording that says most comes first. Of several errors in one text (a chain of exceptions) all are found.
    """
    squeezed = squeeze(PREFIX.sub("", text[-LONGEST:]))
    found = []
    for entry in entries:
        lengths = [len(hit.re.pattern) for regex in entry.patterns if (hit := regex.search(squeezed))]
        if lengths:
            found.append((max(lengths), entry))
    if found:
        found.sort(key=lambda pair: -pair[0])
        return [Match(entry, True, 1.0) for _, entry in found]
    ranked = sorted((Match(e, False, _likeness(text, e, entries)) for e in entries), key=lambda match: -match.likeness)
    return [match for match in ranked[:nearest] if match.likeness >= MIN_LIKENESS]


def squeeze(text: str) -> str:
    """``text`` without what differs between two pastes of it: case, white space (a terminal wraps within words),
    quotes, punctuation."""
    return NOT_WORDS.sub("", text.lower())


def pattern(wording: str) -> re.Pattern[str]:
    """What finds ``wording`` in a squeezed text, whatever stands in its places and whatever its numbers are."""
    parts = [re.sub(r"\d+", r"\\d+", re.escape(squeeze(part))) for part in PLACEHOLDER.split(wording)]
    return re.compile(f".{{0,{LONGEST_GAP}}}?".join(parts))


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]{3,}", text.lower()) if word not in {"the", "and", "for"}]


def _likeness(text: str, entry: Entry, entries: Sequence[Entry]) -> float:
    """The share of the words of ``text`` that the entry has too; the rarer a word among entries, the more it counts."""
    said = set(_words(text[-4000:]))
    weights = {word: math.log(1 + len(entries) / (1 + sum(word in other.words for other in entries))) for word in said}
    total = sum(weights.values())
    return sum(weights[word] for word in said & set(entry.words)) / total if total else 0.0
