"""Builds the site, in Sphinx's strict mode, and follows every link within it.

What flows in: a folder to write to. What flows out: the site in it, or an exit code that is not 0 and, on standard
error, each warning and each link to a page or a place that does not exist. Read :func:`broken_links`.
"""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.cmd.build import main as sphinx

DOCS = Path(__file__).parent


class Page(HTMLParser):
    """The places of a page that can be linked to, and its own links."""

    def __init__(self, path: Path):
        super().__init__()
        self.places, self.links = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.places.add(attributes.get("id"))
        if tag in ("a", "link", "script", "img"):
            self.links += filter(None, (attributes.get("href"), attributes.get("src")))


def broken_links(site: Path) -> Iterator[str]:
    """The links between files of ``site`` that lead nowhere; other addresses are not asked."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            place = unquote(address.fragment)
            if not target.is_file() or (place and target in pages and place not in pages[target].places):
                yield f"{path.relative_to(site.resolve())}: {link} leads nowhere"


def main(folder: str) -> int:
    """Builds and checks; returns the exit code."""
    code = sphinx(["-b", "html", "-q", "-W", "--keep-going", str(DOCS), folder])
    broken = list(broken_links(Path(folder)))
    print(*broken, sep="\n", end="\n" * bool(broken), file=sys.stderr)
    return code or int(bool(broken))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
