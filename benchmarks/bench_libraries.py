"""The comparisons and programs of other libraries, against JAX: the gradient's run time, tracing, and bytes kept.

Needs `pip install 'twograd[libraries]'` and, for Haiku's programs, `pip install dm-haiku`; programs whose library is
missing are left out, and named.
"""

from _bench import summary
from _comparisons import comparison_programs
from _gradients import run_against_jax, trace_against_jax
from _libraries import LIBRARIES
from _saved import saved_against_jax


def main() -> None:
    programs = comparison_programs()
    for title, make in LIBRARIES.items():
        try:
            programs[title] = make()
        except ImportError as error:
            print(f"{title}: left out, {error}")
    runs, traces, sizes = [], [], []
    for title, program in programs.items():
        runs.append(run_against_jax(f"{title}, run", program))
        traces.append(trace_against_jax(f"{title}, trace", program))
        sizes.append(saved_against_jax(f"{title}, kept", program))
    summary("run, twograd.graph / jax.jit(jax.value_and_grad)", runs, goal=1.03)
    summary("trace and transform, twograd.graph / JAX", traces, goal=0.6)
    summary("bytes kept, twograd.graph / JAX", sizes, goal=1.1)


if __name__ == "__main__":
    main()
