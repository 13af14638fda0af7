"""build(): images + extractor + cache -> BuildReport(cached, computed, failed)."""

import csv
import hashlib
import io
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field

from bottlenecks import speeds
from bottlenecks.computing import Computing, Read
from bottlenecks.config import Config
from bottlenecks.errors import BadImageError, ImageFolderError, if_interrupted, shown
from bottlenecks.extractors import extractor_for, name_of
from bottlenecks.network.inception import Extractor
from bottlenecks.network.names import PRECISIONS
from bottlenecks.outputs import check_folder_place
from bottlenecks.photos.decode import decode
from bottlenecks.photos.images import ImageFile, Signature
from bottlenecks.photos.labels import ImageFolder, LabeledImage, scan
from bottlenecks.photos.reading import file_bytes
from bottlenecks.store.cache import Cache, again_if_lost
from bottlenecks.store.layout import BAD_IMAGES_FILE
from bottlenecks.store.stat_index import StatIndex
from bottlenecks.who import computing

INDEX_SECONDS = 60.0  # that the stat index may be behind; it only saves reading


@dataclass(frozen=True, slots=True)
class CachedImage:
    """A readable image and the key (sha256 digest of its content) of its vector.

    ``given`` and ``name`` are as in `bottlenecks.photos.labels.LabeledImage`.
    """

    label: str
    relpath: str
    path: str
    key: bytes
    given: str = ""
    name_at: int = 0

    @property
    def name(self) -> str:
        return self.relpath[self.name_at :]


@dataclass(frozen=True)
class BadImage:
    """An image that could not be read, and why."""

    label: str
    path: str
    reason: str


@dataclass(frozen=True)
class BuildReport:
    """What `build` did. ``images`` are the readable ones, sorted by ``relpath``.

    ``computed`` counts the vectors that this run made, ``cached`` the images whose vector was
    there before, ``copies`` those with the content of another image of this run.
    ``images_per_second`` is the speed once the network ran, 0 where nothing was computed.
    """

    cache: Cache
    images: tuple[CachedImage, ...]
    computed: int
    cached: int
    copies: int
    failed: tuple[BadImage, ...]
    images_per_second: float
    passed_over: int
    empty_folders: tuple[str, ...]
    sets: Mapping[str, str] = field(default_factory=dict)  # of a ready-made split, their folders
    network: str = ""  # precision and engine of what computes the rows

    @property
    def counts(self) -> dict[str, int]:
        """Readable images per label, labels sorted."""
        return dict(sorted(Counter(image.label for image in self.images).items()))


@dataclass(frozen=True)
class Progress:
    """How far a build is: ``done`` of ``total`` images, of which ``computed`` in this run.

    ``machines`` of a cluster compute, 0 where it is this process.
    """

    done: int
    total: int
    computed: int
    machines: int = 0

    @property
    def by(self) -> str:
        """Who computes, to be shown; empty where it is this process."""
        return f"{self.machines} machine{'s' * (self.machines > 1)}" if self.machines else ""


OnProgress = Callable[[Progress], None]


def build(
    config: Config,
    *,
    extractor: Extractor | None = None,
    folder: ImageFolder | None = None,
    on_progress: OnProgress = lambda _: None,
) -> BuildReport:
    """Make sure that every image of ``config.image_dir`` has its vector in the cache.

    What is there already is not computed again; what is computed is committed at least every
    5 seconds, and when the run is interrupted. An image that cannot be read is in
    ``failed`` and in ``bad_images.csv`` of the cache folder; it is tried again next time.

    ``extractor`` stands in for what `bottlenecks.extractors` chooses; ``folder`` is a `scan` made
    before.

    Raises `ImageFolderError` (also where no image of a label can be read), `WeightsError`,
    `CacheError`, ``OSError``, and with ``config.strict`` `BadImageError`.
    """
    folder = folder or scan_of(config)
    check_folders(config)
    extractor = extractor or extractor_for(config, folder)
    return _Build(config, folder, extractor, on_progress).run()


def scan_of(config: Config) -> ImageFolder:
    """The images of ``config``. Raises `ImageFolderError`."""
    return scan(config.image_dir, validation_dir=config.validation_dir, test_dir=config.test_dir)


def check_folders(config: Config) -> None:
    """Raise `OutputError` where the folders that `build` writes to cannot be, making none."""
    for output in config.outputs:
        if output.folder and output.flag in ("bottleneck_dir", "model_dir"):
            check_folder_place(output.path, output.flag)


@dataclass(frozen=True)
class Found:
    """What a file is: the sha256 of its content, its signature, and when it was read."""

    key: bytes
    signature: Signature
    read_ns: int


@dataclass(frozen=True)
class PhotoReader:
    """Reads, hashes, and, where its vector is not cached, decodes one image to ``size``."""

    size: tuple[int, int]

    def __call__(
        self, file: ImageFile, is_cached: Callable[[bytes], bool]
    ) -> Read[Found | BadImageError]:
        try:
            if file.problem:
                raise BadImageError(file.problem)
            read_ns = time.time_ns()
            with file_bytes(file.path, file.signature) as (data, signature):
                key = hashlib.sha256(data).digest()
                pixels = {} if is_cached(key) else {key: decode(data, self.size)}
            return Read(Found(key, signature, read_ns), pixels)
        except BadImageError as error:
            return Read(error)


@dataclass
class _Build:
    """One run of `build`, and what it has found so far."""

    config: Config
    folder: ImageFolder
    extractor: Extractor
    on_progress: OnProgress
    computed: int = 0
    images_per_second: float = 0.0

    def run(self) -> BuildReport:
        """Do it; a run that fails before it has a row leaves no cache folder that it made."""
        extractor = self.extractor
        self.cache = Cache(self.config.bottleneck_dir, extractor.fingerprint, extractor.spec)
        is_new = not self.cache.store.exists()
        try:
            with if_interrupted("what was computed is kept, and the same command resumes"):
                return again_if_lost(lambda: self._run(self.cache))
        except BaseException:
            if is_new:
                with suppress(OSError):
                    self.cache.remove_if_empty()
            raise

    def _run(self, cache: Cache) -> BuildReport:
        self.keys: dict[str, bytes] = {}  # relpath -> key
        self.failed: list[BadImage] = []
        self.copies = 0
        self.is_writing = False
        cache.load()
        self.index = StatIndex.of(cache)
        unknown = []
        for image in self.folder.images:
            key = self.index.get(self.folder.absolute(image), image.file.signature)
            if key is not None and key in cache:
                self.keys[image.relpath] = key
            else:
                unknown.append(image)
        with ExitStack() as self.writing:
            if cache.damaged:
                self._start_writing()
            try:
                while unknown:
                    self._compute(unknown)
                    # Rows that went while this run waited for the lock (pruned, or damaged).
                    unknown = [i for i in self.folder.images if self._is_lost(i)]
            finally:
                if self.is_writing:
                    self.index.save()
            if self.is_writing:
                self._write_bookkeeping()
                cache.merge()
        if not self.is_writing:
            # Nothing was computed, so nothing is lost where the cache cannot be written to.
            with suppress(OSError):
                if self.index.is_changed or cache.is_untidy or self._bad_images_changed():
                    with cache.tidying() as held:
                        if held:
                            self._write_bookkeeping()
        return self._report()

    def _start_writing(self) -> None:
        """Take the cache's lock until the end of the run, once there is something to write."""
        if not self.is_writing:
            self.writing.enter_context(self.cache.writing(self.extractor.description))
            self.is_writing = True

    def _is_lost(self, image: LabeledImage) -> bool:
        return image.relpath in self.keys and self.keys[image.relpath] not in self.cache

    def _compute(self, unknown: list[LabeledImage]) -> None:
        """Read ``unknown``, run the network on what the cache lacks, commit as it goes."""
        saved = time.monotonic()
        files = [image.file for image in unknown]
        with ExitStack() as stack:
            rows: Computing[ImageFile, Found | BadImageError] = stack.enter_context(
                computing(
                    self.config,
                    self.cache,
                    self.extractor,
                    PhotoReader(self.extractor.spec.input_size),
                    files[0].path,
                    on_change=lambda: self._show_progress(rows),
                )
            )
            for number, found in stack.enter_context(closing(rows.read(files))):
                image = unknown[number]
                if isinstance(found, BadImageError):
                    self._fail(image, found)
                    continue
                self.keys[image.relpath] = found.key
                path = self.folder.absolute(image)
                self.index.put(path, found.signature, found.key, found.read_ns)
                if found.key in rows:
                    self.copies += 1
                elif found.key not in self.cache:
                    self._start_writing()  # and see what another run has added
                    if found.key not in self.cache:
                        rows.add(found.key)
                self._show_progress(rows)
                if self.is_writing and time.monotonic() - saved > INDEX_SECONDS:
                    self.index.save()
                    saved = time.monotonic()
            self._show_progress(rows)
        self.computed += rows.computed
        self.images_per_second = rows.images_per_second
        if rows.computed >= speeds.LEAST_IMAGES and not rows.machines:
            precision = self.extractor.description.get("precision")
            if precision in PRECISIONS:
                speeds.remember(self.config.model_dir, precision, rows.images_per_second)

    def _fail(self, image: LabeledImage, error: BadImageError) -> None:
        self.keys.pop(image.relpath, None)  # it may have been readable a moment ago
        self.failed.append(BadImage(image.label, image.path, shown(str(error))))
        if self.config.strict:
            raise BadImageError(
                f"cannot read the image {shown(image.path)}: {error}; mend or remove it, or "
                "leave out --strict to skip it"
            )

    def _show_progress(self, rows: Computing[ImageFile, Found | BadImageError]) -> None:
        done = len(self.keys) + len(self.failed) - rows.waiting
        computed = self.computed + rows.computed
        self.on_progress(Progress(done, len(self.folder.images), computed, rows.machines))

    def _write_bookkeeping(self) -> None:
        """The stat index and the list of bad images, as this run leaves them."""
        paths = {self.folder.absolute(image) for image in self.folder.images}
        self.index.keep_only(self.folder.absolute_root, paths)
        self.index.save()
        if not self._bad_images_changed():
            return
        if self.failed:
            self.cache.store.write(BAD_IMAGES_FILE, self._bad_images_text().encode())
        else:
            self.cache.store.remove(BAD_IMAGES_FILE)

    def _bad_images_changed(self) -> bool:
        store, text = self.cache.store, self._bad_images_text().encode()
        try:
            return store.read(BAD_IMAGES_FILE, len(text))[0] != text
        except FileNotFoundError:
            return bool(self.failed)
        except OSError:  # it is larger, or no file
            return True

    def _bad_images_text(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("path", "label", "reason"))
        writer.writerows((shown(bad.path), bad.label, bad.reason) for bad in self.failed)
        return text.getvalue()

    def _report(self) -> BuildReport:
        images = tuple(
            CachedImage(
                image.label,
                image.relpath,
                image.path,
                self.keys[image.relpath],
                image.given,
                image.name_at,
            )
            for image in self.folder.images
            if image.relpath in self.keys
        )
        report = BuildReport(
            cache=self.cache,
            images=images,
            computed=self.computed,
            cached=len(images) - self.computed - self.copies,
            copies=self.copies,
            failed=tuple(self.failed),
            images_per_second=self.images_per_second,
            passed_over=self.folder.passed_over,
            empty_folders=self.folder.empty_folders,
            sets=self.folder.sets,
            network=name_of(self.extractor, computed=bool(self.computed)),
        )
        if lost := sorted(set(self.folder.counts) - set(report.counts)):
            example = next(bad for bad in self.failed if bad.label == lost[0])
            raise ImageFolderError(
                f"no image of the label {lost[0]!r} can be read, for example "
                f"{shown(example.path)} ({example.reason}); all are listed in "
                f"{self.cache.path_of(BAD_IMAGES_FILE)}"
            )
        return report
