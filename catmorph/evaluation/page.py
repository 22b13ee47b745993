"""The page of an evaluation, in Markdown and in HTML, from one list of sections."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment

from catmorph.evaluation.figures import Drawing, Shown
from catmorph.evaluation.sections import Section, page_sections
from catmorph.release.text import markdown_table, markdown_text, plain_text

_HTML = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
th, td { padding: 0.2rem 0.6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; } img { max-width: 100%; } figcaption { font-size: 13px; color: #555; }
.warning { background: #fff3cd; padding: 0.5rem 0.8rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for section in sections %}
{% if section.title %}<h2>{{ section.title }}</h2>{% endif %}
{% for text in section.warnings %}<p class="warning">{{ text }}</p>
{% endfor %}{% for text in section.texts %}<p>{{ text }}</p>
{% endfor %}{% if section.rows %}<table>
<tr>{% for cell in section.header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in section.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endif %}{% for one in section.figures %}<figure>
<img alt="{{ one.drawing.title }}" src="data:image/png;base64,{{ one.data }}">
<figcaption>{{ one.drawing.caption }}</figcaption>
</figure>
{% endfor %}{% endfor %}</body>
</html>
"""


def markdown_page(shown: Shown, drawings: Sequence[Drawing]) -> str:
    """Return evaluation.md; figures are linked by their place in figures/, names are escaped."""
    lines = [f"# {markdown_text(_title(shown))}", ""]
    for section in page_sections(shown, drawings):
        lines += [f"## {markdown_text(section.title)}", ""] if section.title else []
        for text in section.warnings:
            lines += [f"**Note: {markdown_text(_whole(text))}**", ""]
        for text in section.texts:
            lines += [_markdown_paragraph(text), ""]
        if section.rows:
            lines += [*markdown_table(section.header, section.rows), ""]
        for one in section.drawings:
            lines += [f"![{markdown_text(one.title)}](figures/{one.key}.png)", ""]
            lines += [f"*{_markdown_paragraph(one.caption)}*", ""]
    return "\n".join(lines).rstrip() + "\n"


def html_page(shown: Shown, drawings: Sequence[Drawing]) -> str:
    """Return evaluation.html: one file with its figures in it, which needs nothing else; all text is escaped."""
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_HTML)
    sections = [_printable(section) for section in page_sections(shown, drawings)]
    return template.render(title=plain_text(_title(shown)), sections=sections)


def _printable(section: Section) -> Section:
    return Section(section.title, section.texts, section.header,
                   tuple(tuple(map(plain_text, row)) for row in section.rows), section.drawings, section.warnings)


def _markdown_paragraph(text: str) -> str:
    """Escape a paragraph, which may be longer than a name: sentence by sentence."""
    return " ".join(markdown_text(part) for part in _parts(text))


def _parts(text: str) -> list[str]:
    # `markdown_text` shortens what is longer than a name may be.
    words, parts = text.split(" "), [""]
    for word in words:
        if len(parts[-1]) + len(word) > 150:
            parts.append("")
        parts[-1] += (" " if parts[-1] else "") + word
    return parts


def _whole(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."


def _title(shown: Shown) -> str:
    one = shown.metrics["checkpoint"]
    return f"Evaluation of {one['title'] or one['file']}"
