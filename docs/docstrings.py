"""Docstrings of the package as Markdown: their formulas and cross-references are written for a reader of the source."""

from __future__ import annotations

import re
from textwrap import dedent, indent
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr):`~?([\w.]+)`")
INLINE = re.compile(r":math:`([^`]+)`")
DISPLAY = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*|[ ]*(?=\n\1 +\S)))*)", re.M)


class Markdown(griffe.Extension):
    """``:math:`` and ``.. math::`` as $...$, ``:class:`` and its like as code; the rest is Markdown already."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """One docstring.

    Example:
        >>> markdown("The value :math:`L(z)` of :class:`~a.b.Problem`.")
        'The value $L(z)$ of `Problem`.'
    """
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.M)  # the section that is read as code
    text = DISPLAY.sub(lambda found: indent(f"$$\n{dedent(found[2]).strip()}\n$$", found[1]), text)
    text = INLINE.sub(r"$\1$", text)
    return ROLE.sub(lambda found: f"`{found[1].rpartition('.')[2]}`", text).replace("``", "`")
