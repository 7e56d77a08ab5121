#!/usr/bin/env python3
"""Checks the built manual: every link, anchor, picture and script of every page exists, and the search index has every page.

    docs-check.py SITE

Links to other sites are not followed.
"""

import html.parser
import json
import pathlib
import re
import sys
import urllib.parse


class Page(html.parser.HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.anchors, self.links = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def main(site):
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    broken = []
    for path, page in pages.items():
        for link in page.links if path.name != "404.html" else []:  # it is shown at every path
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
            if target.is_dir():
                target /= "index.html"
            anchor = urllib.parse.unquote(url.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.relative_to(site)}: {link}")

    # The index is a script that assigns JSON.
    index = next(site.glob("searchindex*.js")).read_text(encoding="utf-8")
    found = {url.split("#")[0] for url in re.findall(r'"([^"]+\.html)(?:#[^"]*)?"', index)}
    special = {"404.html", "index.html", "print.html", "toc.html"}  # index.html is README.html once more
    pages_by_name = {str(path.relative_to(site)) for path in pages} - special
    broken += [f"{name}: not in the search index" for name in sorted(pages_by_name - found)]

    if broken:
        sys.exit("\n".join(broken))
    print(f"{len(pages_by_name)} pages, {sum(len(page.links) for page in pages.values())} links")


main(pathlib.Path(sys.argv[1]).resolve())
