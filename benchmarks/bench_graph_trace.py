"""How long do tracing and transforming take, against JAX's own tracing of its gradient?"""

from _bench import summary
from _gradients import trace_against_jax
from _programs import PROGRAMS


def main() -> None:
    ratios = [trace_against_jax(title, make()) for title, make in PROGRAMS.items()]
    summary("trace and transform, twograd.graph / JAX", ratios, goal=0.7)


if __name__ == "__main__":
    main()
