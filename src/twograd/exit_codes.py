"""The exit codes of the command line; argparse itself uses 2."""

OK, DISAGREEMENT, USAGE, FAILURE, INTERRUPTED = 0, 1, 2, 3, 130
REGRESSION = DISAGREEMENT
