"""A walk as one page of HTML: readable without JavaScript, and with it one step at a time.

What flows in: a stepper. What flows out: the text of a file that needs no other. Read :func:`page`; what it looks like
is in ``templates/``. Everything from the program is text, escaped by the template.
"""

import functools
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from twograd.pictures.svg import INK, to_svg
from twograd.tape.stepper.show import heading, origin, sections

MAX_STEPS = 1000
"""Of a longer walk a page shows the beginning."""

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
            "boxes": " ".join(boxes),
        }
        for step, boxes in zip(walk.steps[:MAX_STEPS], walk.boxes, strict=False)
    ]
    picture = Markup(to_svg(walk.picture))  # which escapes whatever it was given
    return _template().render(
        walk=walk, steps=steps, linked=walk.linked, no_jaxpr=walk.no_jaxpr, ink=INK, picture=picture
    )


@functools.cache
def _template() -> Any:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("twograd.tape.stepper", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("page.css", "page.js"):
        text = (files("twograd.tape.stepper") / "templates" / name).read_text(encoding="utf-8")
        environment.globals[name.replace(".", "_")] = Markup(text)
    return environment.get_template("page.html.j2")
