"""What people meet when they differentiate programs: errors, silent mistakes, and claims about how it works.

Read ``entries.py`` for the errors and ``dictionary.py`` for how a pasted text finds its entry; ``museum.py`` for wrong
gradients that no error tells of; ``claims.py`` for a widely read note, sentence by sentence; ``mutations.py`` for rules
that are wrong on purpose, and ``exercises.py`` for ones that a reader writes. All of it is Python that runs: a program
that is shown is a function here, and the tests call it.
"""

from twograd.lore.claims import CLAIMS as CLAIMS
from twograd.lore.claims import Claim as Claim
from twograd.lore.dictionary import Entry as Entry
from twograd.lore.dictionary import Match as Match
from twograd.lore.dictionary import explain as explain
from twograd.lore.entries import ENTRIES as ENTRIES
from twograd.lore.museum import EXHIBITS as EXHIBITS
from twograd.lore.museum import Exhibit as Exhibit
