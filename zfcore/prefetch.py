"""Floor 0: batches copied to a GPU ahead of use, while it computes."""
from contextlib import closing
from itertools import chain, pairwise


def prefetch(cupy, batches):
    """Yield (device array, ...) for each (NumPy array, ...) of the generator `batches`. The copy of the next one is under way
    on a second stream while the caller computes on this one, on the current stream.

    The arrays of `batches` should be `pinned`: copies from other memory are right too, but nothing overlaps. Four waits
    keep it so, since CuPy hands out the memory of an array again as soon as Python has dropped it, whatever the device is
    still doing: two on the device, which cost the host nothing, and two on the host, for copies that are long done."""
    copies = cupy.cuda.Stream(non_blocking=True)

    def send(batch):
        host, *rest = batch
        array = cupy.empty(host.shape, host.dtype)                   # in memory that the current stream used before and,
        copies.wait_event(cupy.cuda.get_current_stream().record())   # for all the host knows, may be using still
        array.set(host, stream=copies)
        return array, host, copies.record(), rest

    with closing(batches):
        try:
            for (array, host, copied, rest), _ in pairwise(chain(map(send, batches), [None])):
                cupy.cuda.get_current_stream().wait_event(copied)
                yield array, *rest
                copied.synchronize()                                 # `host` may now be dropped and filled again
        finally:
            copies.synchronize()                                     # after an early end: both sides' memory
