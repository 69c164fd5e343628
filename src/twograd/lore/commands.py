"""The verbs ``explain``, ``museum``, ``mutate`` and ``claims`` of the command line.

What flows in: the parsed arguments of :mod:`twograd.cli`. What flows out: text, and an exit code. Text that a user
pasted is printed as it is, never as markup.
"""

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from twograd._console import console
from twograd.exit_codes import OK, USAGE
from twograd.lore import dictionary, mutations
from twograd.lore.claims import CLAIMS, NOTE, VERDICTS_ZH
from twograd.lore.dictionary import Entry, Match
from twograd.lore.entries import ENTRIES
from twograd.lore.museum import EXHIBITS, Exhibit, rounded
from twograd.lore.programs import text_of, url

Options = argparse.Namespace
VERDICT_STYLE = {"true": "green", "imprecise": "yellow", "outdated": "red"}


# --- explain ----------------------------------------------------------------------------------------------------------


def explain(options: Options) -> int:
    screen = console(options.color)
    if options.list:
        _list_entries(screen)
        return OK
    text = " ".join(options.text)
    if not text or text == "-":
        text = sys.stdin.read()
    by_name = [entry for entry in ENTRIES if entry.name == text.strip()]
    matches = [Match(entry, True, 1.0) for entry in by_name] or dictionary.explain(text, ENTRIES)
    if matches and matches[0].exact:
        for i, match in enumerate(matches[: None if options.all else 1]):
            screen.print("\n" * bool(i), end="")
            _show_entry(screen, match.entry)
        others = [match.entry.name for match in matches[1:]]
        if others and not options.all:
            _plain(screen, f"The text also fits: {', '.join(others)} (--all shows them).", "dim")
        return OK
    if not text.strip():
        print("twograd: explain needs an error's text, as an argument or on standard input (--list)", file=sys.stderr)
        return USAGE
    print("twograd: no entry has this text (--list prints them all)", file=sys.stderr)
    for match in matches:
        _plain(screen, f"perhaps {match.entry.name} ({match.entry.system}): {match.entry.texts[0]}")
    return USAGE


def _list_entries(screen: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "system", "text"):
        table.add_column(column, overflow="fold", no_wrap=column != "text")
    for entry in ENTRIES:
        table.add_row(Text(entry.name), Text(entry.system), Text(entry.texts[0]))
    screen.print(table)


def _show_entry(screen: Console, entry: Entry) -> None:
    _plain(screen, f"{entry.name} ({entry.system})", "bold")
    _indented(screen, entry.texts[0], "italic")
    _plain(screen, "\nCause", "bold")
    _indented(screen, entry.cause)
    _plain(screen, "\nA program that raises it here", "bold")
    if entry.here is not None:
        _indented(screen, f"(in the words “… {entry.here} …”: {entry.likeness})", "dim")
    _program(screen, entry.raises)
    _plain(screen, "\nThe way out", "bold")
    _indented(screen, entry.remedy)
    _plain(screen, "\nThe same program, right", "bold")
    _program(screen, entry.fix)
    if entry.threads:
        _plain(screen, "\nWhere people discuss it", "bold")
        for thread in entry.threads:
            screen.print(Text(f"  {url(thread)}"), soft_wrap=True)


# --- museum -----------------------------------------------------------------------------------------------------------


def museum(options: Options) -> int:
    screen = console(options.color)
    chosen = _chosen(options.names, EXHIBITS, "exhibit")
    for i, exhibit in enumerate(chosen):
        screen.print("\n" * bool(i), end="")
        _show_exhibit(screen, exhibit, with_source=bool(options.names))
    return OK if chosen else USAGE


def _chosen(names: Sequence[str], known: Sequence[Any], kind: str) -> Sequence[Any]:
    """Those of the ``known`` that have these names; all, if there are none. Nothing where a name is not known."""
    unknown = set(names) - {each.name for each in known}
    if unknown:
        there_are = ", ".join(each.name for each in known)
        print(f"twograd: no {kind} is called {', '.join(sorted(unknown))}; there are {there_are}", file=sys.stderr)
        return ()
    return [each for each in known if not names or each.name in names]


def _show_exhibit(screen: Console, exhibit: Exhibit, with_source: bool) -> None:
    _plain(screen, f"{exhibit.name}: {exhibit.title}", "bold")
    _indented(screen, exhibit.story)
    _indented(screen, f"{exhibit.system}, emulated: {rounded(exhibit.wrong())}", "red")
    _indented(screen, f"differences: {rounded(exhibit.right())}", "green")
    for check in exhibit.checks:
        caught = exhibit.caught(check)
        said = "lets it pass" if caught is None else caught.partition("\n")[0]
        _indented(screen, f"with {check}: {said}", "yellow" if caught is None else "")
    for thread in exhibit.threads:
        screen.print(Text(f"  {url(thread)}", "dim"), soft_wrap=True)
    if with_source:
        source = "".join(f"    {line}" for line in inspect.getsource(exhibit.culprit).splitlines(keepends=True))
        screen.print(Text(f"\n{source}", "cyan"), soft_wrap=True)


# --- mutate -----------------------------------------------------------------------------------------------------------


def mutate(options: Options) -> int:
    screen = console(options.color)
    chosen = _chosen(options.names, mutations.MUTATIONS, "change")
    if not chosen:
        return USAGE
    found = list(mutations.lab(chosen))
    if options.names:
        for mutation, outcomes in found:
            _plain(screen, f"{mutation.name}: {mutation.primitive}, for {mutation.operand}: {mutation.what}", "bold")
            for check, outcome in outcomes.items():
                said = f"{check}: {outcome}" + (f": {outcome.said}" if outcome.said else "")
                _indented(screen, said, "green" if outcome.caught else "")
        return OK
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "rule", "what is wrong with it", *mutations.CHECKS):
        table.add_column(column, overflow="fold")
    for mutation, outcomes in found:
        cells = [outcomes.get(check) for check in mutations.CHECKS]
        shown = [Text(str(cell or ""), "green" if cell and cell.caught else "") for cell in cells]
        table.add_row(Text(mutation.name), Text(str(mutation.primitive)), Text(mutation.what), *shown)
    screen.print(table)
    _plain(screen, mutations.summary(found))
    return OK


# --- claims -----------------------------------------------------------------------------------------------------------


def claims(options: Options) -> int:
    screen = console(options.color)
    chinese = options.lang == "zh"
    titles = ("编号", "笔记中的论断", "结论", "依据") if chinese else ("claim", "what the note says", "verdict", "why")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"《{NOTE}》" if chinese else NOTE, show_lines=True)
    for title in titles:
        table.add_column(title, overflow="fold", ratio=2 if title in (titles[1], titles[3]) else None)
    for claim in CLAIMS:
        verdict = VERDICTS_ZH[claim.verdict] if chinese else claim.verdict
        why = claim.why_zh if chinese else claim.why
        if options.run:
            why += f"\n\n{'实测' if chinese else 'measured'}: {claim.check()}"
        text = claim.text_zh if chinese else claim.text
        table.add_row(Text(claim.name), Text(text), Text(verdict, VERDICT_STYLE[claim.verdict]), Text(why))
    screen.print(table)
    return OK


# --- text -------------------------------------------------------------------------------------------------------------


def _plain(screen: Console, text: str, style: str = "") -> None:
    screen.print(Text(text, style))


def _indented(screen: Console, text: str, style: str = "") -> None:
    screen.print(Padding(Text(text, style), (0, 0, 0, 2)))


def _program(screen: Console, function: Callable[..., Any]) -> None:
    """A program that can be copied: no line of it is wrapped."""
    lines = text_of(function).splitlines()
    screen.print(Text("\n".join(f"    {line}".rstrip() for line in lines), "cyan"), soft_wrap=True)
