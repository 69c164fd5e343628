"""The harness: one program through several engines, its gradients checked, its stages timed, its results kept.

Read :mod:`twograd.compare.program` for what a comparison declares, then :mod:`twograd.compare.runner` for what is done
with it, then :mod:`twograd.compare.results` for what comes out.
"""
