"""Drawings of networks, made from the graph itself: which nodes there are, what each reads, what size it is.

`layout` places boxes, arrows and texts and returns them as data; `svg` writes them down.
"""

from skipway.draw.layout import lay_out
from skipway.draw.parts import Arrow, Box, Drawing, Rect, Text
from skipway.draw.svg import svg

__all__ = ["Arrow", "Box", "Drawing", "Rect", "Text", "lay_out", "svg"]
