"""The static engine: traces a function to a jaxpr and rewrites it into a bigger jaxpr that holds the derivative."""
