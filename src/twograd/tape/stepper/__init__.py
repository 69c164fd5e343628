"""A stepper through the walk back over a tape: in the interpreter, in the terminal, as a page.

Read ``record.py`` for what is known of a step and how it is learned, ``walk.py`` for what one holds in the hand,
``linked.py`` for the derivative's jaxpr beside it; ``show.py`` says it in words, for ``terminal.py`` and for
``account.py``, which is what ``page.py`` shows and what may be kept.
"""

from twograd.tape.stepper.record import Step as Step
from twograd.tape.stepper.walk import Stepper as Stepper
from twograd.tape.stepper.walk import step as step
