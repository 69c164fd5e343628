"""A walk as one page of HTML: readable without JavaScript, and with it one step at a time.

What flows in: a stepper. What flows out: the text of a file that needs no other. Read :func:`page`; what it looks like
is in ``templates/``. Everything from the program is text, escaped by the template.
"""

import functools
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from twograd.pictures.svg import INK
from twograd.tape.stepper.show import heading, origin, sections

if TYPE_CHECKING:
    from twograd.tape.stepper.walk import Stepper


def page(walk: "Stepper") -> str:
    """The page: each step a section, beside them the derivative's jaxpr, whose lines are links to the steps."""
    steps = [
        {
            "step": step,
            "heading": heading(walk, step),
            "origin": origin(walk, step),
            "sections": list(sections(walk, step)),
        }
        for step in walk.steps
    ]
    return _template().render(walk=walk, steps=steps, linked=walk.linked, no_jaxpr=walk.no_jaxpr, ink=INK)


@functools.cache
def _template() -> Any:
    import jinja2  # loaded where it is used: the tape is imported without it

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("twograd.tape.stepper", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("page.css", "page.js"):
        text = (files("twograd.tape.stepper") / "templates" / name).read_text(encoding="utf-8")
        environment.globals[name.replace(".", "_")] = jinja2.utils.markupsafe.Markup(text)
    return environment.get_template("page.html.j2")
