"""HTML as a strict reader has it: every element closed, and the text that is seen."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """The words and cells of a piece of HTML, which must be well-formed.

    Attributes:
      words: of the text, in order.
      rows: of all tables, the cells of each.
      tags: of all elements, in order.
    """

    def __init__(self, html):
        super().__init__()
        self.words, self.rows, self.tags, self._open = [], [], [], []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), attrs
        assert all(value is not None for _, value in attrs), attrs
        assert not any(name.startswith("on") for name in names), attrs
        self.tags.append(tag)
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, tag

    def handle_data(self, data):
        assert self._open, f"text outside of all elements: {data}"
        self.words += data.split()
        if self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
