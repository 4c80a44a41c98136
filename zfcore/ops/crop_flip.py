"""Preparation of stored pictures as the network's input: mean subtracted, cropped, mirrored, turned to batch-last."""
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from zfcore.backend import empty, runs_kernels, to_device
from zfcore.check import Expected, dtype, shape
from zfcore.cpu import parallel, pieces
from zfcore.kernel import Kernel, blocks

TILE = 32                         # pictures and columns that one block turns
KERNEL = Kernel("crop_flip.cu", "crop_flip", "const unsigned char *pictures, const float *mean, const int *tops, "
                "const int *lefts, const unsigned char *flips, stored *out, int H, int W, int rows, int columns, "
                "int N").stored_too()


def crop_flip_reference(pictures, mean, tops, lefts, flips, h, w):
    out = np.empty((3, h, w, len(pictures)), mean.dtype)
    for n, picture in enumerate(pictures):
        crop = (picture.transpose(2, 0, 1) - mean)[:, tops[n]:tops[n] + h, lefts[n]:lefts[n] + w]
        out[..., n] = crop[:, :, ::-1] if flips[n] else crop
    return out


def crop_flip(pictures, mean, tops, lefts, flips, h, w, stored=None):
    """Subtract the mean picture, cut out hxw pixels, mirror some, and turn to batch-last (paper, section 3).

    pictures       (N,H,W,3) uint8        mean (3,H,W) float32 (or float64), subtracted pixel by pixel before the crop
    tops, lefts    (N,) integers, the first row and column of each crop;   flips (N,) bool, mirrored left to right.
                   All three may be on the device too (int32, int32, bool): then nobody looks whether the crops fit
    stored         the dtype of the outcome on a device, float32 or BF16; None: the mean's
    -> (3,h,w,N) of the mean's dtype, or `stored`. Raises Expected where a crop leaves its picture or shapes do not fit."""
    dtype("crop_flip: pictures", pictures, np.uint8)
    dtype("crop_flip: mean", mean, np.float32, np.float64)
    shape("crop_flip: pictures", pictures, (None, None, None, 3))
    N, H, W, _ = pictures.shape
    shape("crop_flip: mean", mean, (3, H, W))
    if not (0 < h <= H and 0 < w <= W):
        raise Expected("crop_flip", f"a crop inside pictures of {H}x{W}", f"{h}x{w}")
    if not runs_kernels(tops):
        tops, lefts, flips = _offsets("tops", tops, N, H - h), _offsets("lefts", lefts, N, W - w), np.asarray(flips)
    shape("crop_flip: flips", flips, (N,))
    dtype("crop_flip: flips", flips, bool)
    out = empty((3, h, w, N), stored or mean.dtype, like=mean)
    if runs_kernels(pictures):
        if not runs_kernels(tops):
            tops, lefts, flips = (to_device(array, like=pictures) for array in
                                  (tops.astype(np.int32), lefts.astype(np.int32), flips))
        KERNEL.variant(out)(blocks(w, TILE)*h*blocks(N, TILE), pictures, mean, tops, lefts, flips.view(np.uint8), out,
                            H, W, h, w, N)
        return out

    def work(rows):
        window = rows.stop - rows.start, w
        places = tops + rows.start, lefts
        crop = sliding_window_view(pictures, window, axis=(1, 2))[(np.arange(N), *places)]      # (N,3,rows,w)
        crop = crop - sliding_window_view(mean, window, axis=(1, 2))[(slice(None), *places)].swapaxes(0, 1)
        crop[flips] = crop[flips, ..., ::-1]
        out[:, rows] = crop.transpose(1, 2, 3, 0)

    parallel(work, pieces(h, 2**18//max(3*w*N*mean.itemsize, 1)))
    return out


def _offsets(what, values, N, last):
    """`values` as an array, after a check that they are N whole numbers from 0 to `last`."""
    values = np.asarray(values)
    shape(f"crop_flip: {what}", values, (N,))
    if values.dtype.kind not in "iu":
        raise Expected(f"crop_flip: {what}", "whole numbers", values.dtype)
    wrong = values[(values < 0) | (values > last)]
    if wrong.size:
        raise Expected(f"crop_flip: {what}", f"0 to {last}", wrong[0])
    return values.astype(np.intp)
