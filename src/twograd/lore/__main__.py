"""``python -m twograd.lore`` writes ``docs/claims.md`` to standard output, having run every check."""

from twograd.lore.claims import page

print(page(), end="")
