"""The harness: one program through several engines, its gradients checked, its stages timed, its results kept.

Read :mod:`twograd.compare.program` for what a comparison declares, then :mod:`twograd.compare.runner` for what is done
with it, then :mod:`twograd.compare.results` for what comes out. A comparison file imports all it needs from here.
"""

from twograd.compare.errors import CompareError as CompareError
from twograd.compare.errors import Unsupported as Unsupported
from twograd.compare.program import Comparison as Comparison
from twograd.compare.program import grid as grid
from twograd.compare.results import Curves as Curves
from twograd.compare.results import Listing as Listing
from twograd.compare.results import Observation as Observation
from twograd.compare.results import Series as Series
from twograd.compare.results import Table as Table
