"""Downloads from a server of our own on 127.0.0.1 that cuts, lies and dawdles on request."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import random
import shutil
import socket
import stat
import subprocess
import sys
import threading
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fast_style.errors import FastStyleError
from fast_style.fetch import ASSETS, Asset, fetch

BODY = random.Random(3).randbytes(300_017)
OTHER_BODY = random.Random(4).randbytes(300_017)


@dataclasses.dataclass
class Site:
    """What the server does, changed by each test, and what it was asked for."""

    address: str = ""
    body: bytes = BODY
    etag: str | None = '"one"'
    ranges: bool = True
    # How many bytes the next answers may hold before the connection is cut.
    cuts: list[int] = dataclasses.field(default_factory=list)
    # Statuses of the next answers that are not the file.
    statuses: list[int] = dataclasses.field(default_factory=list)
    missing: set[str] = dataclasses.field(default_factory=set)
    content_type: str = "application/octet-stream"
    wrong_range: bool = False
    slow: threading.Event | None = None
    asked: threading.Event = dataclasses.field(default_factory=threading.Event)
    requests: list[tuple[str, str | None, str | None]] = dataclasses.field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        condition = handler.headers.get("If-Range")
        self.requests.append((handler.path, asked, condition))
        self.asked.set()
        if self.slow is not None:
            self.slow.wait(5)
        if handler.path in self.missing:
            return handler.send_error(404)
        if self.statuses:
            return handler.send_error(self.statuses.pop(0))
        start = 0
        if asked and self.ranges and condition in (None, self.etag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.body):
                return handler.send_error(416)
        part = self.body[start:]
        handler.send_response(206 if start else 200)
        if start:
            told = start + 1 if self.wrong_range else start
            size = len(self.body)
            handler.send_header("Content-Range", f"bytes {told}-{size - 1}/{size}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.send_header("Content-Type", self.content_type)
        handler.send_header("Content-Length", str(len(part)))
        handler.end_headers()
        handler.wfile.write(part[: self.cuts.pop(0)] if self.cuts else part)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
            served.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    if served.slow is not None:
        served.slow.set()
    server.shutdown()
    server.server_close()
    thread.join()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def weights(site: Site, *paths: str) -> dict[str, Asset]:
    asset = Asset(
        name="net",
        urls=tuple(site.address + path for path in paths or ("/net.h5",)),
        size_bytes=len(BODY),
        checksum=md5(BODY),
        kind="file",
        destination="pretrained/net.h5",
    )
    return {"net": asset}


def photos(site: Site, archive: bytes, limit_bytes: int = 10_000_000) -> dict[str, Asset]:
    site.body = archive
    asset = Asset(
        name="photos",
        urls=(site.address + "/photos.zip",),
        size_bytes=len(archive),
        checksum=md5(archive),
        kind="zip",
        destination="data/set",
        unpacked_limit_bytes=limit_bytes,
    )
    return {"photos": asset}


def zip_of(files: dict[str, bytes], *, unix_mode: int = 0, compress: bool = False) -> bytes:
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = unix_mode << 16
            info.compress_type = method
            archive.writestr(info, data)
    return buffer.getvalue()


GOOD_ZIP = zip_of({"train/": b"", "train/a.jpg": BODY[:1000], "train/deep/b.jpg": BODY[1000:9999]})


def get(name: str, root: Path, assets: dict[str, Asset], **options) -> Path:
    """Fetches without waiting between tries."""
    return fetch(name, root=root, assets=assets, sleep=lambda seconds: None, **options)


def names_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def stop_after(stage: str, done_bytes: int):
    def progress(done: int, total: int | None, now: str) -> None:
        if now == stage and done >= done_bytes:
            raise KeyboardInterrupt

    return progress


# The table.


def test_every_public_asset_is_described_completely():
    assert {"vgg_16", "vgg_19", "coco2014", "coco2017val"} <= set(ASSETS)
    for name, asset in ASSETS.items():
        assert asset.name == name
        assert len(asset.checksum) == hashlib.new(asset.algorithm).digest_size * 2
        assert asset.urls
        assert asset.size_bytes > 1_000_000
        if asset.kind == "zip":
            assert asset.unpacked_limit_bytes > asset.size_bytes


def test_unknown_name_suggests_the_nearest_and_lists_all():
    with pytest.raises(FastStyleError, match=r"'vgg16'.*did you mean 'vgg_16'\?.*coco2017val"):
        fetch("vgg16")


# One file.


def test_fetched_file_has_the_right_bytes_and_nothing_else_is_left(site, tmp_path):
    heard = []
    path = get("net", tmp_path, weights(site), progress=lambda *news: heard.append(news))
    assert path == tmp_path / "pretrained" / "net.h5"
    assert path.read_bytes() == BODY
    assert names_in(tmp_path) == ["pretrained/net.h5"]
    assert heard[0] == (0, len(BODY), "download")
    assert heard[-1] == (len(BODY), len(BODY), "download")


def test_file_already_there_is_not_downloaded_again(site, tmp_path):
    get("net", tmp_path, weights(site))
    get("net", tmp_path, weights(site))
    assert len(site.requests) == 1


def test_other_file_at_the_destination_is_kept_and_named(site, tmp_path):
    path = tmp_path / "pretrained" / "net.h5"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(FastStyleError, match=rf"net.h5: this is not net .*got {md5(b'mine')}"):
        get("net", tmp_path, weights(site))
    assert path.read_bytes() == b"mine"
    assert not site.requests


def test_cut_connections_continue_where_they_stopped(site, tmp_path):
    site.cuts = [100_000, 50_000]
    assert get("net", tmp_path, weights(site)).read_bytes() == BODY
    assert site.requests == [
        ("/net.h5", None, None),
        ("/net.h5", "bytes=100000-", '"one"'),
        ("/net.h5", "bytes=150000-", '"one"'),
    ]


def test_pauses_double_while_nothing_arrives(site, tmp_path):
    site.statuses = [503, 503, 503]
    pauses: list[float] = []
    fetch("net", root=tmp_path, assets=weights(site), sleep=pauses.append)
    assert pauses == [0.5, 1.0, 2.0]


def test_connection_cut_again_and_again_gives_up_but_keeps_the_beginning(site, tmp_path):
    site.cuts = [1000, 0, 0]
    with pytest.raises(FastStyleError, match=r"cut the connection at 1 kB.*tried 2 times in a row"):
        get("net", tmp_path, weights(site), attempts=2)
    assert not (tmp_path / "pretrained" / "net.h5").exists()
    assert (tmp_path / "pretrained" / ".net.h5.partial").read_bytes() == BODY[:1000]
    assert get("net", tmp_path, weights(site)).read_bytes() == BODY
    assert site.requests[-1] == ("/net.h5", "bytes=1000-", '"one"')


def test_server_without_ranges_is_asked_for_the_whole_file_again(site, tmp_path):
    site.ranges = False
    site.cuts = [100_000]
    assert get("net", tmp_path, weights(site)).read_bytes() == BODY
    assert len(site.requests) == 2


def test_server_without_ranges_that_always_cuts_is_given_up(site, tmp_path):
    site.ranges = False
    site.cuts = [1000] * 9
    with pytest.raises(FastStyleError, match="tried 3 times in a row"):
        get("net", tmp_path, weights(site), attempts=3)
    assert len(site.requests) == 4


def test_stopping_keeps_the_beginning_and_says_so(site, tmp_path):
    site.cuts = [120_000]
    with pytest.raises(KeyboardInterrupt, match="net: stopped; fetch it again to continue"):
        get("net", tmp_path, weights(site), progress=stop_after("download", 120_000))
    assert names_in(tmp_path / "pretrained") == [".net.h5.partial", ".net.h5.partial.json"]
    assert get("net", tmp_path, weights(site)).read_bytes() == BODY
    assert site.requests[-1] == ("/net.h5", "bytes=120000-", '"one"')
    assert names_in(tmp_path / "pretrained") == ["net.h5"]


def test_file_changed_on_the_server_between_two_runs_starts_over(site, tmp_path):
    site.body, site.etag, site.cuts = OTHER_BODY, '"old"', [70_000]
    with pytest.raises(KeyboardInterrupt):
        get("net", tmp_path, weights(site), progress=stop_after("download", 70_000))
    site.body, site.etag = BODY, '"new"'
    assert get("net", tmp_path, weights(site)).read_bytes() == BODY
    assert site.requests[1:] == [("/net.h5", "bytes=70000-", '"old"')]


def test_weak_tag_is_not_sent_as_a_condition(site, tmp_path):
    site.etag, site.cuts = 'W/"weak"', [100_000]
    assert get("net", tmp_path, weights(site)).read_bytes() == BODY
    assert site.requests[1:] == [("/net.h5", "bytes=100000-", None)]


def test_beginning_that_does_not_fit_is_found_out_and_starts_over(site, tmp_path):
    partial = tmp_path / "pretrained" / ".net.h5.partial"
    partial.parent.mkdir()
    partial.write_bytes(OTHER_BODY[:50_000])
    assert get("net", tmp_path, weights(site)).read_bytes() == BODY
    assert site.requests == [("/net.h5", "bytes=50000-", None), ("/net.h5", None, None)]


def test_answer_that_begins_elsewhere_is_not_joined(site, tmp_path):
    site.cuts, site.wrong_range = [100_000], True
    assert get("net", tmp_path, weights(site)).read_bytes() == BODY
    assert [asked for _, asked, _ in site.requests] == [None, "bytes=100000-", None]


def test_finished_beginning_needs_no_server(site, tmp_path):
    partial = tmp_path / "pretrained" / ".net.h5.partial"
    partial.parent.mkdir()
    partial.write_bytes(BODY)
    assert get("net", tmp_path, weights(site)).read_bytes() == BODY
    assert not site.requests


def test_beginning_that_is_longer_than_the_file_starts_over(site, tmp_path):
    partial = tmp_path / "pretrained" / ".net.h5.partial"
    partial.parent.mkdir()
    partial.write_bytes(BODY + b"more")
    assert get("net", tmp_path, weights(site)).read_bytes() == BODY
    assert [asked for _, asked, _ in site.requests] == ["bytes=300021-", None]


def test_wrong_bytes_are_removed_and_both_checksums_named(site, tmp_path):
    site.body = OTHER_BODY
    expected, got = md5(BODY), md5(OTHER_BODY)
    with pytest.raises(FastStyleError, match=rf"wrong bytes \(expected MD5 {expected}, got {got}"):
        get("net", tmp_path, weights(site))
    assert names_in(tmp_path) == []
    assert len(site.requests) == 1


def test_login_page_is_refused_and_costs_nothing_of_the_beginning(site, tmp_path):
    partial = tmp_path / "pretrained" / ".net.h5.partial"
    partial.parent.mkdir()
    partial.write_bytes(BODY[:1000])
    site.content_type, site.ranges = "text/html; charset=utf-8", False
    with pytest.raises(FastStyleError, match="sent a web page, not the file"):
        get("net", tmp_path, weights(site))
    assert partial.read_bytes() == BODY[:1000]


@pytest.mark.parametrize(("status", "text"), [(404, "404 Not Found"), (403, "403 Forbidden")])
def test_refusal_is_one_sentence_and_says_what_to_do_by_hand(site, tmp_path, status, text):
    site.statuses = [status]
    with pytest.raises(FastStyleError) as caught:
        get("net", tmp_path, weights(site))
    message = str(caught.value)
    assert f"{site.address}/net.h5 answered {text};" in message
    assert f"save it as {tmp_path / 'pretrained' / 'net.h5'} (MD5 {md5(BODY)})" in message
    assert "\n" not in message
    assert names_in(tmp_path) == []
    assert len(site.requests) == 1


def test_mirror_is_asked_when_the_first_address_is_gone(site, tmp_path):
    site.missing = {"/gone"}
    assert get("net", tmp_path, weights(site, "/gone", "/mirror")).read_bytes() == BODY
    assert [path for path, _, _ in site.requests] == ["/gone", "/mirror"]


def test_mirror_continues_what_another_address_began(site, tmp_path):
    site.cuts, site.etag = [100_000, 0], None
    assets = weights(site, "/first", "/mirror")
    assert get("net", tmp_path, assets, attempts=1).read_bytes() == BODY
    assert site.requests[-1] == ("/mirror", "bytes=100000-", None)


def test_silent_server_is_given_up_after_the_timeout(site, tmp_path):
    site.slow = threading.Event()
    with pytest.raises(FastStyleError, match=r"did not answer within 0\.1 seconds \(tried 2 times"):
        get("net", tmp_path, weights(site), timeout_seconds=0.1, attempts=2)


def test_refused_connection_is_named(site, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        site.address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(FastStyleError, match=rf"{site.address}/net.h5 refused the connection"):
            get("net", tmp_path, weights(site), attempts=2)


def test_unknown_host_is_named_and_not_asked_twice(site, tmp_path, monkeypatch):
    asked = []

    def lookup(host, *rest, **options):
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    site.address = "http://nowhere.invalid"
    with pytest.raises(FastStyleError, match="the host 'nowhere.invalid' is unknown"):
        get("net", tmp_path, weights(site))
    assert asked == ["nowhere.invalid"]


def test_destination_below_a_file_is_one_sentence(site, tmp_path):
    (tmp_path / "pretrained").write_text("a file")
    with pytest.raises(FastStyleError, match="pretrained: cannot create this folder"):
        get("net", tmp_path, weights(site))


# Free disk.


def limit_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12 - free, free))


def test_full_disk_is_told_before_anything_is_asked(site, tmp_path, monkeypatch):
    limit_disk(monkeypatch, 100_000)
    where = tmp_path / "pretrained"
    with pytest.raises(FastStyleError, match=rf"net: needs 300 kB .*{where}, where 100 kB are"):
        get("net", tmp_path, weights(site))
    assert not site.requests
    assert names_in(tmp_path) == []


def test_what_is_already_here_needs_no_room(site, tmp_path, monkeypatch):
    partial = tmp_path / "pretrained" / ".net.h5.partial"
    partial.parent.mkdir()
    partial.write_bytes(BODY[:250_000])
    limit_disk(monkeypatch, 100_000)
    assert get("net", tmp_path, weights(site)).read_bytes() == BODY


def test_archive_needs_room_for_itself_and_its_photos(site, tmp_path, monkeypatch):
    limit_disk(monkeypatch, len(GOOD_ZIP) * 2 - 1)
    with pytest.raises(FastStyleError, match=r"photos: needs 21 kB"):
        get("photos", tmp_path, photos(site, GOOD_ZIP))
    assert not site.requests


def test_unpacked_size_is_checked_against_the_disk_before_unpacking(site, tmp_path, monkeypatch):
    archive = zip_of({"a.txt": b"ab" * 500 + BODY[:200]}, compress=True)
    assert len(archive) * 2 < 1100
    limit_disk(monkeypatch, 1100)
    with pytest.raises(FastStyleError, match=r"set.zip: needs 1 kB"):
        get("photos", tmp_path, photos(site, archive))
    assert names_in(tmp_path) == ["data/set.zip"]


def test_disk_that_fills_while_downloading_keeps_the_beginning(site, tmp_path):
    resource = pytest.importorskip("resource")
    site.cuts = [50_000]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(FastStyleError, match=r"net.h5.partial: cannot write .*continues where"):
            get("net", tmp_path, weights(site))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert get("net", tmp_path, weights(site)).read_bytes() == BODY
    # How much of the last chunk the system still took is its own affair.
    assert int(str(site.requests[-1][1])[len("bytes=") : -1]) >= 50_000


# Photo sets.


def test_unpacked_photos_lie_in_the_folder_without_the_archives_top_folder(site, tmp_path):
    heard = []
    folder = get("photos", tmp_path, photos(site, GOOD_ZIP), progress=lambda *n: heard.append(n))
    assert folder == tmp_path / "data" / "set"
    assert (folder / "a.jpg").read_bytes() == BODY[:1000]
    assert (folder / "deep" / "b.jpg").read_bytes() == BODY[1000:9999]
    assert names_in(tmp_path / "data") == ["set/.fetched.json", "set/a.jpg", "set/deep/b.jpg"]
    assert heard[-1] == (9999, 9999, "unpack")


def test_archive_without_one_top_folder_is_unpacked_as_it_is(site, tmp_path):
    archive = zip_of({"one/a.jpg": b"a", "two/a.jpg": b"b"})
    folder = get("photos", tmp_path, photos(site, archive))
    assert names_in(folder) == [".fetched.json", "one/a.jpg", "two/a.jpg"]


def test_archive_of_one_bare_file_is_unpacked_under_its_name(site, tmp_path):
    folder = get("photos", tmp_path, photos(site, zip_of({"a.jpg": b"a"})))
    assert names_in(folder) == [".fetched.json", "a.jpg"]


def test_unpacked_photos_are_not_downloaded_again(site, tmp_path):
    get("photos", tmp_path, photos(site, GOOD_ZIP))
    get("photos", tmp_path, photos(site, GOOD_ZIP))
    assert len(site.requests) == 1


def test_archive_put_there_by_hand_is_unpacked_without_a_server(site, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "set.zip").write_bytes(GOOD_ZIP)
    folder = get("photos", tmp_path, photos(site, GOOD_ZIP))
    assert "a.jpg" in names_in(folder)
    assert not site.requests


def test_empty_folder_in_the_way_is_filled(site, tmp_path):
    (tmp_path / "data" / "set").mkdir(parents=True)
    assert "a.jpg" in names_in(get("photos", tmp_path, photos(site, GOOD_ZIP)))


def test_own_photos_in_the_folder_are_left_alone(site, tmp_path):
    own = tmp_path / "data" / "set" / "holiday.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    with pytest.raises(FastStyleError, match="was not unpacked by fetch; train on it as it is"):
        get("photos", tmp_path, photos(site, GOOD_ZIP))
    assert names_in(tmp_path) == ["data/set/holiday.jpg"]
    assert not site.requests


def test_photos_missing_from_an_unpacked_set_are_counted(site, tmp_path):
    folder = get("photos", tmp_path, photos(site, GOOD_ZIP))
    (folder / "a.jpg").unlink()
    with pytest.raises(FastStyleError, match="has 1 of 2 files; delete the folder"):
        get("photos", tmp_path, photos(site, GOOD_ZIP))


def test_unpacked_set_of_another_archive_is_named(site, tmp_path):
    folder = get("photos", tmp_path, photos(site, GOOD_ZIP))
    marker = json.loads((folder / ".fetched.json").read_text())
    assert marker == {"name": "photos", "md5": md5(GOOD_ZIP), "files": 2}
    other = zip_of({"train/a.jpg": b"other"})
    with pytest.raises(FastStyleError, match="this copy of photos is another version"):
        get("photos", tmp_path, photos(site, other))


def test_stopped_unpacking_leaves_no_half_folder_and_no_second_download(site, tmp_path):
    with pytest.raises(KeyboardInterrupt, match="fetch it again to continue"):
        get("photos", tmp_path, photos(site, GOOD_ZIP), progress=stop_after("unpack", 1))
    assert names_in(tmp_path) == ["data/set.zip"]
    assert not (tmp_path / "data" / "set").exists()
    assert "a.jpg" in names_in(get("photos", tmp_path, photos(site, GOOD_ZIP)))
    assert len(site.requests) == 1


def test_remains_of_a_killed_unpacking_are_cleared(site, tmp_path):
    remains = tmp_path / "data" / ".set.unpacking" / "a.jpg"
    remains.parent.mkdir(parents=True)
    remains.write_bytes(b"half")
    folder = get("photos", tmp_path, photos(site, GOOD_ZIP))
    assert (folder / "a.jpg").read_bytes() == BODY[:1000]
    assert not remains.parent.exists()


UNSAFE = {
    "leads out of the folder": ["../evil.jpg", "train/../../evil.jpg", "train\\..\\evil.jpg"],
    "absolute path": ["/evil.jpg", "C:\\evil.jpg", "c:evil.jpg", "\\\\host\\evil.jpg"],
    "not safe on every system": ["a/NUL.jpg", "a/b:c.jpg", "a/b .", "a//b", "a/./b", "a\\b"],
}


@pytest.mark.parametrize(
    ("problem", "name"), [(problem, name) for problem, names in UNSAFE.items() for name in names]
)
def test_unsafe_name_is_refused_and_nothing_is_written(site, tmp_path, problem, name):
    archive = zip_of({"train/a.jpg": b"good", name: b"evil"})
    with pytest.raises(FastStyleError, match=problem):
        get("photos", tmp_path / "root", photos(site, archive))
    assert names_in(tmp_path) == ["root/data/set.zip"]


def test_links_are_refused(site, tmp_path):
    archive = zip_of({"train/a.jpg": b"/etc/passwd"}, unix_mode=stat.S_IFLNK | 0o777)
    with pytest.raises(FastStyleError, match="'train/a.jpg' is a link or a device"):
        get("photos", tmp_path, photos(site, archive))
    assert names_in(tmp_path) == ["data/set.zip"]


def test_encrypted_archive_is_refused(site, tmp_path):
    archive = bytearray(zip_of({"train/a.jpg": b"secret"}))
    # Bit 0 of the flags, in the central directory's entry (APPNOTE.TXT, 4.3.12 and 4.4.4).
    archive[archive.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(FastStyleError, match="'train/a.jpg' is encrypted"):
        get("photos", tmp_path, photos(site, bytes(archive)))


def test_file_that_grows_absurdly_is_refused(site, tmp_path):
    archive = zip_of({"train/a.jpg": bytes(1_000_000)}, compress=True)
    with pytest.raises(FastStyleError, match="'train/a.jpg' would grow more than 100 times"):
        get("photos", tmp_path, photos(site, archive))


def test_more_than_the_expected_sum_is_refused(site, tmp_path):
    with pytest.raises(FastStyleError, match="would unpack to 10 kB where at most 9 kB"):
        get("photos", tmp_path, photos(site, GOOD_ZIP, limit_bytes=9_000))


def test_names_that_differ_only_in_case_are_refused(site, tmp_path):
    archive = zip_of({"train/a.jpg": b"one", "train/A.JPG": b"two"})
    with pytest.raises(FastStyleError, match="'train/A.JPG' comes twice"):
        get("photos", tmp_path, photos(site, archive))


def test_name_of_both_a_file_and_a_folder_is_refused(site, tmp_path):
    archive = zip_of({"train/a": b"one", "train/a/b.jpg": b"two"})
    with pytest.raises(FastStyleError, match="'train/a' is both a file and a folder"):
        get("photos", tmp_path, photos(site, archive))


@pytest.mark.parametrize("broken", ["content", "no archive"])
def test_damaged_archive_leaves_no_folder(site, tmp_path, broken):
    content = GOOD_ZIP.replace(BODY[2000:2010], bytes(10))
    archive = content if broken == "content" else BODY
    with pytest.raises(FastStyleError, match=r"set.zip: this archive is damaged \("):
        get("photos", tmp_path, photos(site, archive))
    assert names_in(tmp_path) == ["data/set.zip"]


def test_damaged_archive_in_place_is_named_with_its_checksum(site, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "set.zip").write_bytes(b"half")
    with pytest.raises(FastStyleError, match=rf"set.zip: this is not photos .*got {md5(b'half')}"):
        get("photos", tmp_path, photos(site, GOOD_ZIP))


# Two at once.


def test_second_fetch_of_the_same_asset_is_told_to_wait(site, tmp_path):
    site.slow = threading.Event()
    first = threading.Thread(target=get, args=("net", tmp_path, weights(site)))
    first.start()
    try:
        assert site.asked.wait(5)
        with pytest.raises(FastStyleError, match=r"another process \(id \d+\) is fetching it"):
            get("net", tmp_path, weights(site))
    finally:
        site.slow.set()
        first.join()
    assert names_in(tmp_path) == ["pretrained/net.h5"]


def test_lock_of_a_killed_process_keeps_nobody_out(site, tmp_path):
    script = (
        "import os, pathlib, sys; from fast_style import fetch\n"
        "with fetch._only_process('net', pathlib.Path(sys.argv[1])): os._exit(9)"
    )
    lock = tmp_path / "pretrained" / ".net.h5.lock"
    lock.parent.mkdir()
    killed = subprocess.run([sys.executable, "-c", script, str(lock)], check=False)
    assert killed.returncode == 9
    assert lock.exists()
    assert get("net", tmp_path, weights(site)).read_bytes() == BODY
    assert not lock.exists()
