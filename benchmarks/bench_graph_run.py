"""How fast does the compiled gradient run, against jax.jit(jax.value_and_grad)?"""

from _bench import summary
from _gradients import run_against_jax
from _programs import PROGRAMS


def main() -> None:
    ratios = [run_against_jax(title, make()) for title, make in PROGRAMS.items()]
    summary("compiled gradient, twograd.graph / jax.jit(jax.value_and_grad)", ratios, goal=1.05)


if __name__ == "__main__":
    main()
