"""The command ``twograd``: reads the command line; the work is done in :mod:`twograd.compare.commands`, or, for errors
and claims, in :mod:`twograd.lore.commands`.

What flows in: arguments. What flows out: text on stdout (progress and errors on stderr) and an exit code: 0 all is
well; 1 gradients disagree, or a --fail-if is fulfilled; 2 the question cannot be answered as asked; 3 an engine or a
comparison raised; 130 interrupted. JAX is imported only once the arguments are known to be right, so ``--help`` answers
at once.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from twograd import __version__
from twograd.compare.errors import CompareError
from twograd.exit_codes import FAILURE, INTERRUPTED, OK, USAGE

DESCRIPTION = """\
One table of derivative rules, two autodiff engines, and the means to compare them.

examples:
  twograd list                                what there is to compare, and with what
  twograd check --dtype float64               are all gradients right?
  twograd bench --only op_chain --engines tape,graph,jax-jit
  twograd bench --sweep --out sweep           who wins, by length, size and rate of new shapes: maps, a roofline
  twograd report --quick                      everything in under five minutes, as one HTML file
  twograd corners comparisons/mlp_digits.py   one program at the four corners, every cell measured
  twograd trace comparisons/op_chain.py       its lines, tape nodes, equations and derivative, side by side
  twograd new mine                            write a comparison to be changed, mine.py; `twograd report mine.py`
  twograd plot results/2026-11-23T14-24-38Z   draw the report again from its results.json; of several devices, as one
  twograd diff before after --fail-if slower=1.10   what changed between two results, with intervals
  twograd env                                 what results would be stamped with
  twograd explain "PASTED ERROR"              what an error of PyTorch, TensorFlow, Theano, ... means; a way out
  twograd museum                              wrong gradients that no error tells of, and what catches them
  twograd mutate                              wrong rules, and which check catches each
  twograd claims --lang zh                    what a widely read note says of autograd, claim by claim
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    # NumPy's threads, for the engines that compute in it, would go on spinning beside the next engine's sample for some
    # 60 ms; 2 ** 18 cycles are some 0.1 ms. It is read where NumPy is loaded, which is below.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "18")
    options = parser().parse_args(argv)
    if options.verb is None:
        parser().print_help()
        return OK
    try:
        commands = importlib.import_module(f"twograd.{options.area}.commands")
        code = getattr(commands, options.verb)(options)
        sys.stdout.flush()
        return code
    except CompareError as error:
        print(f"twograd: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        kept = f" What was measured is kept in {options.out}; go on with --out {options.out}." if _out(options) else ""
        print(f"twograd: interrupted.{kept}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        if options.verbose:
            raise
        said = "\n".join([str(error), *getattr(error, "__notes__", ())])
        print(f"twograd: internal error: {type(error).__name__}: {said} (-v shows where)", file=sys.stderr)
        return FAILURE


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="twograd", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"twograd {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="of the terminal's text")
    common.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
    common.add_argument("-v", "--verbose", action="store_true", help="tracebacks of internal errors")

    setting = argparse.ArgumentParser(add_help=False)
    setting.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help="what to compute on (auto)")
    setting.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of all floats (float32)")
    setting.add_argument("--seed", type=_natural, default=0, help="of inputs, directions and the order of timing (0)")

    running = argparse.ArgumentParser(add_help=False, parents=[setting])
    running.add_argument(
        "files", nargs="*", metavar="NAME", help="comparisons to run: names, or paths of your own files (all)"
    )
    running.add_argument("--only", type=_names, default=[], metavar="A,B", help="the same, as one list")
    running.add_argument(
        "--engines", type=_names, default=[], metavar="A,B",
        help="engines for every timed program; 'all': every one (without: a comparison's own of the usual eight)",
    )  # fmt: skip
    running.add_argument("--quick", action="store_true", help="smaller cases and fewer samples, in under five minutes")
    running.add_argument("--out", metavar="DIR", help="folder of the results; an interrupted run goes on from there")
    running.add_argument(
        "--cell-limit", type=_positive, metavar="SECONDS",
        help="for each case; comparisons then run in processes of their own: a hang or a crash costs one case",
    )  # fmt: skip
    running.add_argument("--json", nargs="?", const="-", metavar="PATH", help="also the results as JSON; - is stdout")

    timing = argparse.ArgumentParser(add_help=False)
    timing.add_argument("--budget", type=_positive, metavar="SECONDS", help="for everything together")
    timing.add_argument("--min-time", type=_positive, metavar="SECONDS", help="to sample each stage for (0.5)")
    timing.add_argument("--rounds", type=_natural, metavar="N", help="samples of each stage at least (20)")
    timing.add_argument("--warmup", type=_positive, metavar="SECONDS", help="at most, for each stage (1.0)")
    timing.add_argument(
        "--sweep", action="store_true",
        help="which engine wins, by length of the graph, size of tensors and rate of new shapes: a page of the report, "
        "beside what is named; of bench, where nothing is, that alone",
    )  # fmt: skip
    timing.add_argument("--precision", type=_positive, metavar="P", help="of ratios, to go on sampling for (0.02)")

    def verb(name: str, help: str, *parents: argparse.ArgumentParser, area: str = "compare") -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=help, description=help, parents=[common, *parents])
        made.set_defaults(area=area)
        return made

    verb("list", "the comparisons and the engines")
    verb("check", "checks all gradients, and times nothing", running)
    verb("bench", "checks, times, and prints tables", running, timing)
    verb("report", "checks, times, and writes results.json, report.html and charts", running, timing)
    corners = verb("corners", "one program at the four corners: rebuilt or built once, by value or by symbols", setting)
    corners.add_argument("file", metavar="FILE", help="a comparison, or a Python file with a function f and its args")
    trace = verb("trace", "a program's lines beside its tape nodes, equations, its derivative's, and times", setting)
    trace.add_argument("file", metavar="FILE", help="a comparison, or a Python file with a function f and its args")
    new = verb("new", "writes a comparison of your own, to be changed")
    new.add_argument("name", metavar="NAME", help="of the file, NAME.py; one that is there already is left alone")
    plot = verb("plot", "draws the report again from a results.json, or one report from those of several devices")
    plot.add_argument("results", nargs="+", metavar="RESULTS", help="a results.json, or the folder that it lies in")
    plot.add_argument("--out", metavar="DIR", help="folder to draw into (that of the results, where it is one)")
    diff = verb("diff", "what changed between two results; code 1 where a --fail-if is fulfilled")
    diff.add_argument("before", metavar="BEFORE", help="a results.json, or the folder that it lies in")
    diff.add_argument("after", metavar="AFTER", help="another")
    diff.add_argument(
        "--stages", type=_names, default=["forward+backward"], metavar="A,B", help="to compare (forward+backward)"
    )
    diff.add_argument(
        "--relative-to", metavar="ENGINE", help="count times as multiples of this engine's: of two machines, say"
    )
    diff.add_argument(
        "--fail-if", type=_condition, action="append", default=[], metavar="CONDITION",
        help="slower=1.10: a time's whole interval is above 1.10 times; larger=1.05: a size is; worse: a row was ok",
    )  # fmt: skip
    verb("env", "prints the environment that results are stamped with")
    explain = verb("explain", "what an error means, a program that raises it, and the way out", area="lore")
    explain.add_argument("text", nargs="*", metavar="TEXT", help="the error, or a name; standard input if none")
    explain.add_argument("--list", action="store_true", help="all entries")
    explain.add_argument("--all", action="store_true", help="every entry that the text fits, not the best only")
    museum = verb("museum", "wrong gradients that no error tells of, with their checks off and on", area="lore")
    museum.add_argument("names", nargs="*", metavar="NAME", help="exhibits to show, with their programs (all, without)")
    mutate = verb("mutate", "rules of the table, changed to be wrong, and which check catches each", area="lore")
    mutate.add_argument("names", nargs="*", metavar="NAME", help="changes to make, with what each check says (all)")
    claims = verb("claims", "a note on autograd, claim by claim, with verdicts", area="lore")
    claims.add_argument("--lang", choices=("en", "zh"), default="en", help="of claims and verdicts (en)")
    claims.add_argument("--run", action="store_true", help="runs the check of each claim, and prints what it measured")
    return top


def _out(options: argparse.Namespace) -> str | None:
    return getattr(options, "out", None)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _natural(text: str) -> int:
    value = int(text) if text.isdecimal() else -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 upwards")
    return value


def _condition(text: str) -> tuple[str, float]:
    """``slower=1.10``, ``larger=1.05`` or ``worse``, as a pair."""
    name, _, limit = text.partition("=")
    if name == "worse" and not limit:
        return name, 0.0
    if name not in ("slower", "larger"):
        raise argparse.ArgumentTypeError(f"{text!r} is none of slower=RATIO, larger=RATIO and worse")
    return name, _positive(limit)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value
