"""Who computes the rows of a run: this process, or a cluster."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from bottlenecks import machine
from bottlenecks.cluster.crew import crew
from bottlenecks.computing import Answer, Computing, Item, Reader, here
from bottlenecks.config import Config
from bottlenecks.network.inception import Extractor
from bottlenecks.photos.reading import threads_for
from bottlenecks.store.cache import Cache


def computing(
    config: Config,
    cache: Cache,
    extractor: Extractor,
    reader: Reader[Item, Answer],
    sample: str,
    rows_each: int = 1,
    on_change: Callable[[], None] = lambda: None,
) -> AbstractContextManager[Computing[Item, Answer]]:
    """What reads the items of a run and computes their rows, as ``config`` says.

    ``sample`` is a photo of the run, ``rows_each`` how many rows an item has at most; ``on_change``
    is called when a cluster is further, also where that yields no item.
    """
    if config.cluster is not None:
        return crew(
            config.cluster,
            cache,
            extractor,
            reader,
            sample,
            config.batch_size,
            config.decode_threads,
            rows_each,
            on_change,
        )
    batch_size = config.batch_size or machine.batch_size()
    threads = threads_for(config.decode_threads, [sample])
    return here(cache, extractor, reader, batch_size, threads, rows_each)
