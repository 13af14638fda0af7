"""bottlenecks.photos.page: what pages of photos share."""

import base64
from io import BytesIO

import numpy as np
from PIL import Image

from bottlenecks.photos.page import data_url, jpeg_url, render


def test_pictures_are_within_the_page() -> None:
    assert data_url(b"abc", "png") == "data:image/png;base64,YWJj"
    kind, data = jpeg_url(np.full((20, 30, 3), 200, np.uint8)).split(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(BytesIO(base64.b64decode(data))) as image:
        assert (image.format, image.size) == ("JPEG", (30, 20))


def test_a_template_of_another_package_has_the_shared_parts_and_escapes() -> None:
    card = {"bars": [], "caption": "<a>/b", "instead": "<i>"}
    text = render("label_image", "sheet.html.jinja", {}, title="<t>", side=100, cards=[("", card)])
    assert "--ink" in text  # the style
    assert "&lt;a&gt;/<wbr>b" in text
    assert "&lt;i&gt;" in text and "&lt;t&gt;" in text
    assert not any(tag in text for tag in ("<a>", "<i>", "<t>"))
