"""Addresses are followed as they are, and said without what may be secret."""

from typing import Any

import pytest

from bottlenecks.config import Config
from bottlenecks.errors import UsageError, public, shown
from bottlenecks.photos.places.addresses import is_address, origin_of, relative


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://bucket/photos", True),
        ("S3://bucket", True),
        ("https://host/", True),
        ("abfss://box@account.dfs.core.windows.net/x", True),
        ("photos", False),
        ("/s3://bucket", False),
        ("./https://host", False),
        ("s3:/bucket", False),
        ("C:/photos", False),
        ("a b://c", False),
    ],
)
def test_what_is_an_address(path: str, expected: bool) -> None:
    assert is_address(path) is expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://me:secret@host/a.jpg?signature=secret#x", "https://host/a.jpg"),
        ("https://secret@host/a.jpg", "https://host/a.jpg"),
        ("sftp://me@host/photos", "sftp://host/photos"),
        ("s3://bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
        ("https://a@b@host/c", "https://host/c"),
        ("abfs://box@account.dfs.core.windows.net/x", "abfs://box@account.dfs.core.windows.net/x"),
        ("abfs://box:key@account.windows.net/x", "abfs://account.windows.net/x"),
        ("photos/a?b#c@d", "photos/a?b#c@d"),
        ("/x/https://me:secret@host", "/x/https://me:secret@host"),
    ],
)
def test_what_everybody_may_see(address: str, expected: str) -> None:
    assert public(address) == shown(address) == expected


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("https://me:secret@host/photos/", "password"),
        ("https://secret@host/photos/", "password or a user"),
        ("s3://key:secret@bucket/photos", "password"),
        ("https://host/photos/?token=secret", r"\? or #"),
        ("https://host/photos/#secret", r"\? or #"),
        ("zip://*::s3://bucket/photos.zip", "chain"),
        ("memory://photos::file:///etc", "chain"),
        ("file:///photos", "without the scheme"),
        ("s3://", "names no host or bucket"),
    ],
)
@pytest.mark.parametrize("flag", ["image_dir", "validation_dir", "test_dir"])
def test_what_cannot_be_a_folder_s_is_a_usage_error(address: str, what: str, flag: str) -> None:
    folders: dict[str, Any] = {"image_dir": "photos", flag: address}
    with pytest.raises(UsageError, match=rf"^--{flag} .*{what}") as error:
        Config(**folders)
    assert "secret" not in str(error.value)


def test_the_store_that_an_address_leads_to() -> None:
    assert origin_of("S3://bucket/photos/a.jpg") == origin_of("s3://bucket") == "s3://bucket"
    assert origin_of("https://host?x") == "https://host"


def test_the_way_from_one_folder_to_another() -> None:
    assert relative("s3://bucket/sets/test", "s3://bucket/photos") == "../sets/test"
    assert relative("s3://bucket/photos/test", "s3://bucket/photos/") == "test"
    assert relative("s3://other/test", "s3://bucket/photos") == "s3://other/test"
