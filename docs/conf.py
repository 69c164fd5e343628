"""The site: ``make docs`` builds it into ``build/docs``, and fails on a warning or on a link to nowhere."""

import twograd

project = "twograd"
version = release = twograd.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]

html_theme = "furo"
html_title = "twograd"
html_show_copyright = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.header"]  # claims.md takes the note's own numbers as titles

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "exclude-members": "__init__, __new__, Any"}
autodoc_preserve_defaults = True


def show_programs(app, what, name, obj, options, lines):
    """Marks the indented blocks of a docstring as programs, which is what they are, with or without two colons."""
    marked, outside, before = [], 0, ""  # the indentation around a block, and the last line that is not blank
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if line and indent >= outside + 4 and not lines[number - 1] and not before.endswith("::"):
            marked += [" " * outside + "::", ""]
            before = "::"
        elif line and (indent < outside + 4 or not before.endswith("::")):
            outside, before = indent, line
        marked.append(line)
    lines[:] = marked


def setup(app):
    app.connect("autodoc-process-docstring", show_programs)
