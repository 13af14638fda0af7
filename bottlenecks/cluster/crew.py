"""Hands out the work to the machines of a cluster, and again what was lost."""

import itertools
import logging
import os
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic

from bottlenecks import __version__, machine, rows
from bottlenecks.atomic import PARTIAL_SUFFIX
from bottlenecks.cluster.carried import carry
from bottlenecks.cluster.connection import connected
from bottlenecks.cluster.nodes import Place, places, start
from bottlenecks.cluster.worker import Done, KnownKeys, NotSharedError, Setup, Started
from bottlenecks.computing import Answer, Computing, Item, Reader
from bottlenecks.errors import ClusterError, one_line, shown
from bottlenecks.network.inception import Extractor
from bottlenecks.store.cache import Cache

LOOK_SECONDS = 2.0  # between two looks at which machines are there
SILENT_SECONDS = 120.0  # after which a worker is given up, where others go on
PATIENCE_SECONDS = 300.0  # that a cluster without a single worker is waited for
STOP_SECONDS = 3.0  # that an interrupted run waits for what is computed to be committed
LOSSES = 3  # of workers in one place, after which it is left alone
AHEAD = 4  # pieces, of a batch each, that a worker has at once
_NOTICE_SECONDS = 20.0

log = logging.getLogger(__name__)


@dataclass
class _Piece:
    """Items that a worker was given together; they are none once they are answered.

    ``keys`` are those of its rows that are wanted.
    """

    items: Sequence[int]
    keys: list[bytes] = field(default_factory=list)


@dataclass(eq=False)
class _Member:
    """A worker, and what it has to do.

    ``added`` are the rows that it was told to compute and has not said to have committed, with the
    items that they are of.
    """

    actor: Any
    place: Place
    heard: float
    batch_size: int = 0  # 0 until it is ready
    pieces: dict[int, _Piece] = field(default_factory=dict)
    added: dict[bytes, int] = field(default_factory=dict)
    computed: int = 0
    committed: int = 0
    sees_cache: bool = False
    is_finishing: bool = False
    is_dropping: bool = False


@dataclass(frozen=True)
class _Call:
    member: _Member
    what: str
    piece: int = -1


class Crew(Generic[Item, Answer]):
    """All workers of a run, as one `bottlenecks.computing.Computing`."""

    def __init__(
        self,
        ray: Any,
        cache: Cache,
        setup: Setup,
        sent: Any,
        exact: bool,
        rows_each: int,
        on_change: Callable[[], None],
    ) -> None:
        self._ray, self._cache, self._setup, self._exact = ray, cache, setup, exact
        self._rows_each, self._on_change = rows_each, on_change
        self._sent, self._known = ray.put(sent), ray.put(KnownKeys.of(cache))
        self._token = f".cluster.{uuid.uuid4().hex}{PARTIAL_SUFFIX}"
        self._members: list[_Member] = []
        self._calls: dict[Any, _Call] = {}
        self._losses: Counter[Place] = Counter()
        self._refused: dict[str, str] = {}  # machine -> why
        self._left: deque[int] = deque()
        self._numbers = itertools.count()
        self._keys: set[bytes] = set()
        self._current: tuple[_Member, _Piece, int, list[bytes]] | None = None
        self._committed = 0
        self._looked = -LOOK_SECONDS
        self._alone_since = time.monotonic()
        self._has_noticed = False
        self._since = 0.0
        self._first = 0

    @property
    def machines(self) -> int:
        return len({member.place.node for member in self._members if member.batch_size})

    @property
    def computed(self) -> int:
        return self._committed + sum(one.computed - one.committed for one in self._members)

    @property
    def waiting(self) -> int:
        return len(self._keys) - self.computed

    @property
    def images_per_second(self) -> float:
        now = time.monotonic()
        if not self._since or now <= self._since:
            return 0.0
        return (self.computed - self._first) / (now - self._since)

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def read(self, items: Sequence[Item]) -> Generator[tuple[int, Answer], None, None]:
        self._left.extend(range(len(items)))
        while self._left or any(one.pieces or one.added for one in self._members):
            self._look_for_machines()
            self._hand_out(items)
            for call, reply in self._replies():
                call.member.heard = time.monotonic()
                if call.what == "start":
                    self._started(call.member, reply)
                elif call.what == "read":
                    yield from self._answered(call, reply)
                elif call.what == "drop":
                    self._dropped(call, reply)
                else:
                    self._done(call, reply)
                self._on_change()

    def add(self, key: bytes) -> None:
        assert self._current is not None
        member, piece, item, keys = self._current
        if key in keys:
            self._keys.add(key)
            member.added[key] = item
            piece.keys.append(key)

    def _hand_out(self, items: Sequence[Item]) -> None:
        """Give each worker that has room a piece after the other, and then let it finish."""
        ready = [one for one in self._members if one.batch_size]
        for _ in range(AHEAD):
            for member in ready:
                if len(member.pieces) < AHEAD and self._left:
                    self._give(member, items)
        if self._left:
            return
        idle = False
        for member in ready:
            if not member.pieces and member.added and not member.is_finishing:
                member.is_finishing = True
                self._call(member, "finish")
            idle |= not member.pieces and not member.added
        if idle:
            self._take_back(ready)

    def _give(self, member: _Member, items: Sequence[Item]) -> None:
        count = min(len(self._left), max(1, member.batch_size // self._rows_each))
        own = [self._left.popleft() for _ in range(count)]
        number = next(self._numbers)
        member.pieces[number] = _Piece(own)
        self._call(member, "read", number, [items[i] for i in own])

    def _take_back(self, ready: Sequence[_Member]) -> None:
        """Where one has nothing to do, take a piece that was not begun from the one with most."""
        most = max(ready, key=lambda one: len(one.pieces))
        if len(most.pieces) > 1 and not most.is_dropping:
            most.is_dropping = True
            self._call(most, "drop", max(most.pieces))

    def _call(self, member: _Member, what: str, *arguments: Any) -> None:
        piece = arguments[0] if what in ("read", "compute", "drop") else -1
        reference = getattr(member.actor, what).remote(*arguments)
        self._calls[reference] = _Call(member, what, piece)

    def _replies(self) -> Iterator[tuple[_Call, Any]]:
        """What has come since; waits for something a while."""
        ray = self._ray
        if not self._calls:
            time.sleep(min(LOOK_SECONDS, 0.5))
            return
        with _stops_as_itself():
            ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=LOOK_SECONDS)
            if ready:
                ready, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)
        for reference in ready:
            call = self._calls.pop(reference, None)
            if call is None:  # of a worker that was lost a moment ago
                continue
            try:
                with _stops_as_itself():
                    reply = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, Exception) else error
                if not isinstance(cause, NotSharedError):
                    raise cause from None
                self._refuse(call.member, str(cause))
                continue
            except ray.exceptions.RayError as error:  # the process or the machine has gone
                self._lose(call.member, str(error))
                continue
            yield call, reply

    def _started(self, member: _Member, started: Started) -> None:
        if started.problem:
            self._refuse(member, started.problem)
        member.batch_size = started.batch_size

    def _answered(
        self, call: _Call, answers: Sequence[tuple[Answer, list[bytes]]]
    ) -> Iterator[tuple[int, Answer]]:
        piece = call.member.pieces.get(call.piece)
        if piece is None:  # it was taken back
            return
        items, piece.items = piece.items, ()
        for item, (answer, keys) in zip(items, answers, strict=True):
            self._current = call.member, piece, item, keys
            yield item, answer
        if piece.keys and not call.member.sees_cache:
            self._cache.store.write(self._token, b"", sync=False)
        self._call(call.member, "compute", call.piece, piece.keys, self._token)

    def _dropped(self, call: _Call, is_dropped: bool) -> None:
        member = call.member
        member.is_dropping = False
        piece = member.pieces.pop(call.piece, None) if is_dropped else None
        if piece is not None:
            again = [member.added.pop(key) for key in piece.keys]
            self._keys.difference_update(piece.keys)
            self._left.extend([*piece.items, *dict.fromkeys(again)])

    def _done(self, call: _Call, done: Done) -> None:
        member = call.member
        member.sees_cache = True
        member.pieces.pop(call.piece, None)
        member.is_finishing = False
        if not self._since and done.computed:
            self._since, self._first = time.monotonic(), done.computed
        member.computed = done.computed
        self._cache.adopt(done.shards)
        for shard in done.shards:
            for key in shard.keys:
                if member.added.pop(key.tobytes(), None) is not None:
                    self._committed += 1
                    member.committed += 1

    def _look_for_machines(self) -> None:
        """Start a worker in every place that has none; give up those that are silent."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        ready = [one for one in self._members if one.batch_size]
        waiting = {call.member for call in self._calls.values()}
        for member in ready if len(ready) > 1 else []:
            if member in waiting and now - member.heard > SILENT_SECONDS:
                self._lose(member, f"it has said nothing for {SILENT_SECONDS:.0f} seconds")
        taken = {member.place for member in self._members}
        there = list(places(self._ray))
        free = [
            place
            for place in there
            if place not in taken
            and place.machine not in self._refused
            and self._losses[place] < LOSSES
        ]
        for place in free:
            member = _Member(start(self._ray, place, self._exact), place, now)
            self._members.append(member)
            self._call(member, "start", self._setup, self._sent, self._known, place.cores or 1)
        self._check_patience(now, bool(ready), there)

    def _check_patience(self, now: float, has_workers: bool, there: Sequence[Place]) -> None:
        """Raise `ClusterError` where nobody computes, or can be expected to."""
        if has_workers:
            self._alone_since, self._has_noticed = now, False
            return
        if not self._members and self._refused and there:
            raise ClusterError(
                "no machine of the cluster can take part: "
                + "; ".join(f"{name}: {why}" for name, why in self._refused.items())
            )
        busy = f"no cores free ({len(there)} machines are there)" if there else "no machine"
        if now - self._alone_since > PATIENCE_SECONDS:
            raise ClusterError(
                f"the cluster has had {busy} for {PATIENCE_SECONDS / 60:.0f} minutes; look at it: "
                "ray status"
            )
        if now - self._alone_since > _NOTICE_SECONDS and not self._has_noticed:
            self._has_noticed = True
            log.warning("the cluster has %s, or they are slow to start; waiting", busy)

    def _refuse(self, member: _Member, why: str) -> None:
        name = member.place.machine
        if name not in self._refused:
            log.warning("the machine %s takes no part: %s", shown(name), why)
        self._refused[name] = why
        self._remove(member)

    def _lose(self, member: _Member, why: str) -> None:
        place = member.place
        self._losses[place] += 1
        if "ModuleNotFoundError" in why:
            self._refuse(member, "this program, or what it needs, is not installed there")
            return
        if self._losses[place] == LOSSES:
            self._refused[place.machine] = one_line(RuntimeError(why))
        log.warning("a worker of the machine %s is lost; others do its work", shown(place.machine))
        self._remove(member)

    def _remove(self, member: _Member) -> None:
        """Let others do what it has not committed."""
        self._members.remove(member)
        self._calls = {ref: call for ref, call in self._calls.items() if call.member is not member}
        with suppress(Exception):
            self._ray.kill(member.actor)
        if member.added:
            self._cache.load()  # it may have committed more than it could say
        again = [item for piece in member.pieces.values() for item in piece.items]
        for key, item in member.added.items():
            if key in self._cache:
                self._committed += 1
            else:
                self._keys.discard(key)
                again.append(item)
        self._left.extend(dict.fromkeys(again))

    def stop(self) -> None:
        """Have what is computed committed, if that can be soon."""
        finishing = []
        for member in self._members:
            if member.batch_size:
                with suppress(Exception):
                    member.actor.stop.remote()
                    finishing.append(member.actor.finish.remote())
        if finishing:
            self._ray.wait(finishing, num_returns=len(finishing), timeout=STOP_SECONDS)

    def close(self) -> None:
        for member in self._members:
            with suppress(Exception):
                self._ray.kill(member.actor)
        with suppress(OSError):
            self._cache.store.remove(self._token)


@contextmanager
def _stops_as_itself() -> Iterator[None]:
    """Ctrl-C and SIGTERM that come while Ray waits: its C code may hide them in a SystemError."""
    try:
        yield
    except SystemError as error:
        stop = error.__cause__ or error.__context__
        if stop is None or isinstance(stop, Exception):
            raise
        raise stop from None


@contextmanager
def crew(
    address: str,
    cache: Cache,
    extractor: Extractor,
    reader: Reader[Item, Answer],
    sample: str,
    batch_size: int | None,
    threads: int | None,
    rows_each: int,
    on_change: Callable[[], None],
) -> Iterator[Computing[Item, Answer]]:
    """The machines of the cluster at ``address``, see `bottlenecks.computing.here`.

    ``sample`` is a photo that all must see. What is computed is committed when it is interrupted,
    if that can be soon; no worker is left. Raises `ClusterError`, `UsageError`.
    """
    sent = carry(extractor)
    try:
        size = os.stat(sample).st_size
    except OSError:  # it will be a bad image
        seen = None
    else:
        seen = sample, size
    setup = Setup(
        __version__,
        os.getcwd(),
        cache.bottleneck_dir,
        reader,
        seen,
        batch_size,
        threads,
        rows.COMMIT_SECONDS,
    )
    with connected(address) as ray:
        is_exact = not machine.has_gpu()
        made: Crew[Item, Answer] = Crew(ray, cache, setup, sent, is_exact, rows_each, on_change)
        try:
            yield made
        except BaseException:
            made.stop()
            raise
        finally:
            made.close()
