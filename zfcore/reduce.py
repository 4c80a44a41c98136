"""Floor 3: the gradients of a batch, summed over its leaves wherever they were computed.

A batch is cut into leaves of some pictures (`leaves`), whatever the number of ranks, and each rank takes neighbouring ones
(`share`). Their gradients are added up in the order of one tree over the leaves (zfcore/ops/tree_sum.py): first what is a node
within a rank, then, a slice of the arrays on each rank, the rest. So the bits do not depend on the number of ranks, and what
travels is 2(R - 1)/R times the size of the gradients for R ranks: no more than in a ring.
"""
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from zfcore.backend import array_module, empty
from zfcore.check import Expected
from zfcore.hints import Array, Arrays, Shape
from zfcore.ops.tree_sum import joined, spans, tree_sum
from zfcore.ranks import Ranks
from zfcore.terminal import plural

BUCKET = 2**24                   # bytes of gradients from which on they travel, while those of lower layers are still to come
LEAVES = 8                       # into which several ranks cut a batch if no --micro-batch was asked for; more for more ranks

Cut: TypeAlias = tuple[tuple[int, ...], ...]        # of a batch: the numbers of pictures of each rank's leaves, none of them 0


def leaves(N: int, size: int) -> list[slice]:
    """Slices of a batch of N pictures, of `size` each but for the last; size 0: one of all."""
    return [slice(first, min(first + (size or N), N)) for first in range(0, N, size or max(N, 1))]


def share(count: int, ranks: int, rank: int) -> slice:
    """The leaves, of `count`, that the rank takes: neighbouring ones, as many as any other or one more or less."""
    return slice(rank*count//ranks, (rank + 1)*count//ranks)


def micro_batch(batch_size: int, asked: int, ranks: int) -> int:
    """The size of the leaves for so many ranks: the one that was `asked` for, or else what makes LEAVES of a batch, or as many
    as the next power of two above the ranks. Raises Expected where ranks would be left without any."""
    if ranks == 1:
        return asked
    size = asked or max(batch_size//max(LEAVES, 2**(ranks - 1).bit_length()), 1)
    if ranks > (count := len(leaves(batch_size, size))):
        most = f"at most {count}, of which each has a piece of {plural(size, 'picture')} of a batch of {batch_size}"
        raise Expected("ranks", most, ranks, "fewer ranks, a smaller --micro-batch or a larger --batch-size")
    return size


class Place(NamedTuple):
    """Place of a gradient in its bucket, an array in one piece."""
    layer: str
    key: str
    shape: Shape
    first: int
    stop: int


def buckets(shapes: dict[str, dict[str, Shape]]) -> list[list[Place]]:
    """The Places of all gradients, {layer: {"w": shape}} from the pixels up, in the order in which backward makes them, in
    buckets of BUCKET bytes or a little more. Each place begins at a multiple of four numbers, as kernels like it."""
    found, at = [[]], 0
    for layer, of_layer in reversed(shapes.items()):
        if 4*at >= BUCKET:
            found.append([])
            at = 0
        for key, shape in of_layer.items():
            size = int(np.prod(shape))
            found[-1].append(Place(layer, key, shape, at, at + size))
            at = _fours(at + size)
    return found


class GradientSum:
    """The sum of a step's gradients, which are handed over layer by layer as backward makes them.

    ranks, beside   between whom arrays travel, and on what (`Device.beside`)
    shapes          {layer: {"w": shape}} of all parameters, from the pixels up
    counts          number of leaves of each rank in this step, together one or more
    rows            (leaves,2) float64, zeros, where the rank's own leaves add their loss and wrong answers: `row(k)`
    like            an array on the network's device
    done            is handed {layer: {"w": dw, "b": db}}, some layers' sums, as soon as they are there, on `beside`; by then
                    the rows of all leaves are. None: nobody asks before `total`"""

    def __init__(self, ranks: Ranks, beside: Any, shapes: dict[str, dict[str, Shape]], counts: Sequence[int], rows: Array,
                 like: Array, done: Callable[[Arrays], object] | None = None) -> None:
        self.ranks, self.beside, self.counts, self.rows, self.like = ranks, beside, counts, rows, like
        self.leaves, self.first = sum(counts), sum(counts[:ranks.rank])
        self.begins = [first for rank, count in enumerate(counts)
                       for first, _ in spans(sum(counts[:rank]), sum(counts[:rank]) + count, self.leaves)]
        self.held: dict[str, list[tuple[tuple[int, int], Any]]] = {layer: [] for layer in shapes}
        self.left = {layer: counts[ranks.rank] for layer in shapes}
        self.done, self.waiting = done, buckets(shapes) if ranks.size > 1 or done else []
        self.sums: dict[str, dict[str, Array]] = {}
        self.alive: list[Any] = []       # arrays that both sides know, until they meet

    def row(self, k: int) -> Array:
        """The row (2,) of this rank's leaf number k."""
        return self.rows[self.first + k]

    def add(self, layer: str, grads: dict[str, Array]) -> None:
        """Take the gradients of a layer from the rank's next leaf. They are no longer the caller's."""
        held = self.held[layer]
        leaf = self.first + self.counts[self.ranks.rank] - self.left[layer]
        self.left[layer] -= 1
        held.append(((leaf, leaf + 1), grads))
        while len(held) > 1 and joined(held[-2][0], held[-1][0], self.leaves):
            (span, left), ((_, stop), right) = held[-2:]
            for key, gradient in left.items():
                tree_sum([gradient, right[key]], [0, span[1] - span[0]], stop - span[0])
            held[-2:] = [((span[0], stop), left)]
        self.send()

    def send(self) -> None:
        """Let every bucket go its way whose gradients are all there: between several ranks it travels, the rows before the
        first one."""
        while self.waiting and not any(self.left[place.layer] for place in self.waiting[0]):
            bucket = self.waiting.pop(0)
            if self.ranks.size > 1:
                self.travel(bucket)
            else:
                self.sums |= {place.layer: self.held[place.layer][0][1] for place in bucket}
            if self.done is not None:
                self.beside.run(partial(self.done, {place.layer: self.sums[place.layer] for place in bucket}))

    def travel(self, bucket: list[Place]) -> None:
        """Let the bucket's sums over all ranks come about."""
        if not self.alive:
            self.alive.append(self.rows)
            self.beside.run(self.exchange_rows)
        parts = self.packed(bucket)
        total = empty((parts.shape[1],), np.float32, like=self.like)
        self.alive += parts, total
        self.beside.run(partial(self.exchange, parts, total))
        for place in bucket:
            self.sums.setdefault(place.layer, {})[place.key] = total[place.first:place.stop].reshape(place.shape)

    def total(self) -> Arrays:
        """{layer: {"w": dw, "b": db}} summed over all leaves of all ranks; `rows` are all there, too, and `done` is done."""
        self.send()                      # a rank without a leaf
        if self.ranks.size == 1 and self.done is None:
            return {layer: held[0][1] for layer, held in self.held.items()}
        self.beside.join()
        self.alive.clear()
        return self.sums

    def packed(self, bucket: list[Place]) -> Array:
        """The rank's partial sums of a bucket, (spans, numbers), which it gives up."""
        held = self.held[bucket[0].layer]
        parts = empty((len(held), _fours(bucket[-1].stop)), np.float32, like=self.like)
        for place in bucket:
            parts[:, place.stop:_fours(place.stop)] = 0
            for part, (_, grads) in zip(parts, self.held[place.layer]):
                part[place.first:place.stop] = grads[place.key].reshape(-1)
        for place in bucket:
            self.held[place.layer] = []
        return parts

    def exchange(self, parts: Array, total: Array) -> None:
        """Fill `total` with the sum of all ranks' `parts`: each rank adds up a slice of it."""
        cuts = slices(len(total), self.ranks.size)
        mine, ready = cuts[self.ranks.rank], array_module(total).ascontiguousarray
        sends = [ready(parts[:, cut]) for cut in cuts]
        receives = [empty((len(spans(sum(self.counts[:rank]), sum(self.counts[:rank + 1]), self.leaves)),
                           mine.stop - mine.start), np.float32,
                          like=total) for rank in range(self.ranks.size)]
        self.ranks.exchange(sends, receives)
        received = [part for of_rank in receives for part in of_rank]
        tree_sum(received, self.begins, self.leaves)
        self.ranks.exchange([received[0]]*self.ranks.size, [total[cut] for cut in cuts])
        self.alive += sends

    def exchange_rows(self) -> None:
        """Let every rank have the rows of all."""
        ends = np.cumsum([0, *self.counts]).tolist()
        mine = self.rows[self.first:self.first + self.counts[self.ranks.rank]]
        self.ranks.exchange([mine]*self.ranks.size, [self.rows[a:b] for a, b in zip(ends, ends[1:])])


def slices(length: int, count: int) -> list[slice]:
    """0:length cut into `count` slices, as equal as multiples of four can be; the last may be empty."""
    size = _fours(-(-length//count))
    return [slice(min(k*size, length), min((k + 1)*size, length)) for k in range(count)]


def _fours(n):
    return -(-n//4)*4
