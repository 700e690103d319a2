"""Pages of this repository: every relative link leads to a file, and to a heading, that exists."""

import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt


ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        ROOT / "hub_cards" / "space" / "README.md",
    ]
)


def links(page):
    """The targets of a page's links and images that name no other site."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
    inline = [child for token in tokens if token.type == "inline" for child in token.children]
    targets = [
        token.attrs.get("href") or token.attrs.get("src") for token in inline if token.type in ("link_open", "image")
    ]
    return sorted({target for target in targets if not urlsplit(target).scheme})


def anchors(page):
    """What GitHub calls a page's headings: in lower case, without punctuation, hyphens for spaces, numbered where equal."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
    found = Counter()
    for heading, title in zip(tokens, tokens[1:], strict=False):
        if heading.type == "heading_open":
            text = "".join(child.content for child in title.children)
            name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            yield name if not found[name] else f"{name}-{found[name]}"
            found[name] += 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_heading(page):
    broken = []
    for target in links(page):
        path, _, heading = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.is_relative_to(ROOT) or not file.exists() or (heading and heading not in anchors(file)):
            broken.append(target)
    assert not broken
