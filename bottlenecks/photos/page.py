"""What HTML pages of photos have in common: one file that needs nothing else."""

import base64
import importlib.resources
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader
from PIL import Image

from bottlenecks.errors import shown

PARTS = "parts.html.jinja"  # the style and the macros that all pages share


def render(
    package: str, template: str, filters: Mapping[str, Callable[..., Any]], **values: Any
) -> str:
    """A template of ``package``, filled; it may import from `PARTS`. All that is put in is escaped.

    There are the filters ``percent`` and ``shown``, and ``filters``.
    """

    def source(name: str) -> str:
        home = __package__ if name == PARTS else package
        return importlib.resources.files(home).joinpath(name).read_text("utf-8")

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(source)
    )
    environment.filters |= {"percent": "{:.1%}".format, "shown": shown, **filters}
    return environment.get_template(template).render(**values)


def data_url(data: bytes, kind: str) -> str:
    """The bytes of a picture of ``kind``, "png" or "jpeg", as a URL."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def jpeg_url(pixels: np.ndarray) -> str:
    """(height, width, 3) uint8 pixels as the URL of a JPEG."""
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=80)
    return data_url(jpeg.getvalue(), "jpeg")
