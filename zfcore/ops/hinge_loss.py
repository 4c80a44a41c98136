"""One-against-the-rest linear SVM losses, for the classifiers that are put on top of a trained network's features."""
import numpy as np

from zfcore.backend import empty, runs_kernels, to_device, to_host
from zfcore.check import Expected, dtype, shape
from zfcore.kernel import Kernel, blocks
from zfcore.ops.softmax_loss import class_labels

IMAGES = 8                        # that one block of hinge_loss works on
FORWARD = Kernel("hinge_loss.cu", "hinge_loss",
                 "const float *scores, const float *targets, float *margins, float *each, int M, int N, int squared")
BACKWARD = Kernel("hinge_loss.cu", "hinge_loss_gradient", "const float *margins, const float *targets, "
                  "float *dscores, long long total, int N, int squared")


def hinge_loss_reference(scores, labels, squared=True):
    M, N = scores.shape
    loss = 0.0
    for m, n in np.ndindex(M, N):
        t = labels[m, n] if np.ndim(labels) == 2 else (1 if labels[n] == m else -1)
        if t:
            loss += max(0.0, 1 - t*float(scores[m, n]))**(2 if squared else 1)/N
    return loss


def hinge_loss(scores, labels, squared=True):
    """Mean over N pictures of the sum over M classes of max(0, 1 - t*score), squared as LinearSVC does, or not.

    scores (M,N) float32 or float64 -> loss (a Python float), cache. The target t is +1 or -1:
    labels (N,)     one class 0 .. M-1 per picture: t is +1 for it and -1 for all others
    labels (M,N)    the targets themselves, where a picture may show several classes; a target 0 is left out
                    (PASCAL VOC marks so the pictures in which a class is present but hard to see)
    Raises Expected for other labels or shapes."""
    dtype("hinge_loss: scores", scores, np.float32, np.float64)
    shape("hinge_loss: scores", scores, (None, None))
    M, N = scores.shape
    labels = np.asarray(labels)
    if labels.ndim == 1:
        right = np.arange(M)[:, None] == class_labels("hinge_loss: labels", labels, M, N)
        targets = np.where(right, 1, -1).astype(scores.dtype)
    else:
        shape("hinge_loss: targets", labels, (M, N))
        if not np.isin(labels, (-1, 0, 1)).all():
            raise Expected("hinge_loss: targets", "-1, 0 or +1", labels[~np.isin(labels, (-1, 0, 1))][0])
        targets = labels.astype(scores.dtype)
    if runs_kernels(scores):
        targets = to_device(targets, like=scores)
        margins, each = empty((M, N), scores.dtype, like=scores), empty((N,), scores.dtype, like=scores)
        FORWARD(blocks(N, IMAGES), scores, targets, margins, each, M, N, squared)
        return float(to_host(each).sum(dtype=np.float64)/N), (margins, targets, squared)
    margins = np.maximum(np.abs(targets) - targets*scores, 0)              # how much each score falls short
    each = np.square(margins) if squared else margins
    return float(each.sum(dtype=np.float64)/N), (margins, targets, squared)


def hinge_loss_backward(cache):
    """dscores (M,N): -t/N where the score falls short (at the kink itself 0), times twice the shortfall if squared."""
    margins, targets, squared = cache
    if runs_kernels(margins):
        dscores = empty(margins.shape, margins.dtype, like=margins)
        BACKWARD(blocks(margins.size, BACKWARD.block), margins, targets, dscores, margins.size, margins.shape[1], squared)
        return dscores
    slope = 2*margins if squared else (margins > 0).astype(margins.dtype)
    return -targets*slope/margins.shape[1]
