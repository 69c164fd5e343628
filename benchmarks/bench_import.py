"""What does importing twograd add to importing jax, and how fast does the command line answer?

Each measurement is a fresh interpreter; the best of a few is printed, the two imports interleaved. Python may keep the
bytecode that it compiles, as pip does for what it installs, JAX among it.
"""

import os
import subprocess
import sys
import time

ROUNDS = 7
JAX = "import jax, jax.numpy"
TWOGRAD = f"{JAX}; import twograd; from twograd import tape, graph; import twograd.numpy"


def seconds(*command: str) -> float:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - start


def main() -> None:
    jax, twograd, help_text = [], [], []
    for _ in range(ROUNDS):
        jax.append(seconds("-c", JAX))
        twograd.append(seconds("-c", TWOGRAD))
        help_text.append(seconds("-m", "twograd", "--help"))
    added = min(twograd) - min(jax)
    print(f"import jax {min(jax):.2f} s, with twograd's engines {min(twograd):.2f} s: adds {added:.2f} s (goal: 0.3)")
    print(f"twograd --help {min(help_text):.2f} s (goal: 0.5)")


if __name__ == "__main__":
    main()
