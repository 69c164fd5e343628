"""A walk as one page of HTML: readable without JavaScript, and with it one step at a time.

What flows in: a stepper. What flows out: the text of a file that needs no other. Read :func:`page`; what it looks like
is in ``templates/``: ``steps.*`` are the parts that other pages show walks with too. Everything from the program is
text, escaped by the template.
"""

import functools
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from twograd.pictures.svg import INK, to_svg
from twograd.tape.stepper.account import account

if TYPE_CHECKING:
    from twograd.tape.stepper.walk import Stepper

LOADER = jinja2.PackageLoader("twograd.tape.stepper", "templates")


def page(walk: "Stepper") -> str:
    """The page: each step a section, beside them the derivative's jaxpr, whose lines are links to the steps."""
    picture = Markup(to_svg(walk.picture))  # which escapes whatever it was given
    return _template().render(account=account(walk), ink=INK, picture=picture, script=script())


def script() -> Markup:
    """The script of ``steps.html.j2``, for any number of walks in a page."""
    return Markup((files("twograd.tape.stepper") / "templates" / "steps.js").read_text(encoding="utf-8"))


@functools.cache
def _template() -> Any:
    environment = jinja2.Environment(
        loader=LOADER, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2")
