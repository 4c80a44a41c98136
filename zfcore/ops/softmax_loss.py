"""Softmax and the mean cross-entropy against class labels: the loss the paper trains with (section 3)."""
import numpy as np

from zfcore.backend import empty, runs_kernels, to_device, to_host
from zfcore.check import Expected, dtype, shape, unmasked
from zfcore.kernel import Kernel, blocks

IMAGES = 8                        # that one block of softmax and softmax_loss works on
SOFTMAX = Kernel("softmax_loss.cu", "softmax", "const float *logits, float *p, int M, int N", block=1024)
FORWARD = Kernel("softmax_loss.cu", "softmax_loss", "const float *logits, const int *labels, float *p, float *each, "
                 "unsigned char *wrong, int M, int N", block=1024)
TOTALS = Kernel("softmax_loss.cu", "softmax_loss_totals",
                "const float *each, const unsigned char *wrong, double *totals, int N", block=128)
BACKWARD = Kernel("softmax_loss.cu", "softmax_loss_gradient",
                  "const float *p, const int *labels, float *dlogits, int M, int N")


def softmax_reference(logits):
    p = np.empty(logits.shape)
    for n in range(logits.shape[1]):
        e = np.exp(logits[:, n].astype(float) - logits[:, n].max())
        p[:, n] = e/e.sum()
    return p


def softmax_loss_reference(logits, labels):
    p = softmax_reference(logits)
    loss = -np.mean([np.log(p[label, n]) for n, label in enumerate(labels)])
    return float(loss), (p, labels)


def softmax_loss_backward_reference(cache):
    p, labels = cache
    return (p - (np.arange(len(p))[:, None] == labels))/p.shape[1]


def softmax(logits):
    """Probabilities of the M classes: exp(logits) / sum of exp(logits) over the classes, (M,N) -> (M,N)."""
    dtype("softmax: logits", logits, np.float32, np.float64)
    shape("softmax: logits", logits, (None, None))
    if runs_kernels(logits):
        p = empty(logits.shape, logits.dtype, like=logits)
        SOFTMAX(blocks(p.shape[1], IMAGES), logits, p, *p.shape)
        return p
    p, total, _ = _exponentials(logits)
    p /= total
    return p


def softmax_loss(logits, labels):
    """Mean over N pictures of -log(probability of the right class).

    logits (M,N) float32 or float64, labels (N,) integers 0 .. M-1 -> loss (a Python float), cache.
    No exponential overflows: log p = z - log(sum of exp z) with z = logits - their maximum.
    Raises Expected for labels that are not N of the M classes."""
    each, _, cache = _forward(logits, labels)
    return float(to_host(each).mean(dtype=np.float64)), cache


def softmax_loss_onto(totals, logits, labels):
    """Add to `totals` (2,) float64, which lies where the logits do, the sum over N pictures of softmax_loss and the number
    of those whose largest logit is another class's -> cache. The host need not wait for either.

    Labels may be on the device too, int32: then nobody looks whether they are classes."""
    shape("softmax_loss: totals", totals, (2,))
    dtype("softmax_loss: totals", totals, np.float64)
    each, wrong, cache = _forward(logits, labels)
    if runs_kernels(logits):
        TOTALS(1, each, wrong, totals, len(each))
    else:
        totals += float(each.mean(dtype=np.float64))*len(each), wrong.sum()
    return cache


def _forward(logits, labels):
    """(loss of each picture (N,), whether another class has the largest logit (N,), cache)."""
    dtype("softmax_loss: logits", logits, np.float32, np.float64)
    shape("softmax_loss: logits", logits, (None, None))
    M, N = logits.shape
    if not runs_kernels(labels):
        labels = class_labels("softmax_loss: labels", labels, M, N)
    if runs_kernels(logits):
        labels = labels if runs_kernels(labels) else to_device(labels.astype(np.int32), like=logits)
        p, each, wrong = (empty(size, kind, like=logits) for size, kind in
                          (((M, N), logits.dtype), ((N,), logits.dtype), ((N,), np.uint8)))
        FORWARD(blocks(N, IMAGES), logits, labels, p, each, wrong, M, N)
        return each, wrong, (p, labels)
    p, total, z = _exponentials(logits)
    each = np.log(total) - z[labels, np.arange(N)]                  # (N,)
    p /= total
    return each, logits.argmax(axis=0) != labels, (p, labels)


def softmax_loss_backward(cache):
    """dlogits (M,N) = (probabilities - one-hot labels)/N."""
    p, labels = cache
    N = p.shape[1]
    if runs_kernels(p):
        dlogits = empty(p.shape, p.dtype, like=p)
        BACKWARD(blocks(len(p), BACKWARD.block//32), p, labels, dlogits, *p.shape)
        return dlogits
    dlogits = p.copy()
    dlogits[labels, np.arange(N)] -= 1
    dlogits /= N
    return dlogits


def class_labels(what, labels, M, N):
    """`labels` as int64, after a check that they are N whole numbers from 0 to M-1."""
    unmasked(what, labels)
    labels = np.asarray(labels)
    shape(what, labels, (N,))
    if labels.dtype.kind not in "iu":
        raise Expected(what, "whole numbers", labels.dtype)
    if N == 0:
        raise Expected(what, "at least one picture", "none")
    wrong = labels[(labels < 0) | (labels >= M)]
    if wrong.size:
        raise Expected(what, f"classes 0 to {M - 1}", f"{wrong[0]}")
    return labels.astype(np.int64, copy=False)


def _exponentials(logits):
    """exp(z), its sum over the classes, and z = logits - their maximum."""
    with np.errstate(invalid="ignore"):                             # infinite logits: the loss is NaN, and says enough
        z = logits - logits.max(axis=0)
        e = np.exp(z)
    return e, e.sum(axis=0), z
