"""The same operations by others: PyTorch (cuDNN, cuBLAS and its own kernels) and cuDNN through nvidia-cudnn-frontend.

    for name, make in peers(case): contestant = make(sets, clock)          # none where neither is installed

Both get the very numbers that ours gets, in each of their two layouts where an operation has one, padded beforehand where
ZFNet's windows reach over the border (the size rule that rounds up). Products are formed in the precision of the case:

    fp32, fp32x3   no factor is rounded; the error printed beside the ratio would show it
    tf32           cuDNN and cuBLAS may round to TF32, and use tensor cores
    bf16           what they read and write is bfloat16 beforehand, as ours is

cuDNN may try all its algorithms that do so."""
import contextlib
import os
from functools import partial

import numpy as np

from bench.cases import BATCH_EPS, BATCH_MOMENTUM, DECAY, LR, MOMENTUM
from bench.record import optional
from bench.timing import Contestant
from zfcore.backend import BF16, array_module, to_host
from zfcore.ops.convert import convert, in_float

torch = optional("torch")
try:
    import cudnn
except ImportError:
    cudnn = None

LAYOUTS = "channels first", "channels last"
IN_LAYOUTS = "conv2d", "conv2d_maxpool", "maxpool", "avgpool", "pad", "local_response_norm", "batch_norm"
WORKSPACE = 2**30                 # bytes that an algorithm of cuDNN may use
PLANS = 24                        # algorithms of cuDNN that are timed
CONVOLUTIONS = "forward", "data gradient", "weight gradient"


def strict_fp32():
    """Call it before anything runs on the GPU: no library may round the factors of a float32 product where it is not asked
    to."""
    # read by cuDNN and cuBLAS when they start; it wins over what is asked
    os.environ.pop("NVIDIA_TF32_OVERRIDE", None)
    if torch is not None:
        allow_tf32(False)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 0         # 0: all algorithms, not ten


def allow_tf32(allowed):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


def versions():
    """{"pytorch": ..., "cudnn": ..., "cudnn_frontend": ...}, None for what is not there."""
    through_torch = torch.backends.cudnn.version() if torch is not None and torch.backends.cudnn.is_available() else None
    return {"pytorch": torch and torch.__version__, "cudnn": through_torch or (cudnn and cudnn.backend_version()),
            "cudnn_frontend": cudnn and cudnn.__version__}


def peers(case):
    """[(name, make)] of every peer of `case`; make(sets, clock), with tuples of inputs on the device, is its Contestant."""
    found = []
    if torch is not None and (case.noun, case.what) in TORCH:
        layouts = LAYOUTS if case.noun in IN_LAYOUTS else ("",)
        found += [(f"PyTorch {layout}".strip(), partial(with_torch, TORCH), layout) for layout in layouts]
        if torch.cuda.is_available():
            found += [(f"PyTorch fused {layout}", partial(with_torch, FUSED), layout) for layout in layouts
                      if (case.noun, case.what) in FUSED]
    if cudnn is not None and case.noun == "conv2d" and case.what in CONVOLUTIONS:
        found += [(f"cuDNN {layout}", with_frontend, layout) for layout in LAYOUTS]
    return [(name, lambda sets, clock, name=name, make=make, layout=layout: make(name, layout, case, sets, clock))
            for name, make, layout in found]


# ------------------------------------------------------------------------------------------------------- PyTorch
def with_torch(builds, name, layout, case, sets, clock):
    """The Contestant by the table `builds`, TORCH or FUSED."""
    build = builds[case.noun, case.what]
    with on_stream(clock):
        calls = [build(layout, case.window, *(shortened(tensor(array), case.precision) for array in arrays)) for arrays in sets]

    def each():
        """The outputs of all sets. PyTorch lends at once what nobody holds: one dropped, and the next set's would lie in the same
        memory, which is in the cache; ours has outputs of its own for each."""
        return [call() for call in calls]

    def once():
        with on_stream(clock), torch.no_grad(), products_in(case.precision):
            each()

    def output():
        with on_stream(clock), torch.no_grad(), products_in(case.precision):
            got = calls[0]()
            return None if got is None else [back(part) for part in (got if isinstance(got, tuple) else (got,))]

    def capture(once, passes):
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), products_in(case.precision), torch.cuda.graph(graph):
            for _ in range(passes):
                each()

        def replay():
            with on_stream(clock):
                graph.replay()
        return replay

    return Contestant(name, once, len(sets), output, None if (case.noun, case.what) in NOT_CAPTURED else capture)


@contextlib.contextmanager
def products_in(precision):
    """Let the libraries form products of float32 factors in `precision` inside."""
    allow_tf32(precision == "tf32")
    try:
        yield
    finally:
        allow_tf32(False)


def shortened(t, precision):
    """Tensors of float32 as bfloat16 where products are formed in it."""
    return t.bfloat16() if precision == "bf16" and t.dtype == torch.float32 else t


def on_stream(clock):
    """PyTorch works on the clock's stream; a clock without one is a test's, on the CPU."""
    stream = getattr(clock, "stream", None)
    return torch.cuda.stream(torch.cuda.ExternalStream(stream.ptr)) if stream else contextlib.nullcontext()


def tensor(array):
    """An array of ours as PyTorch's tensor, the same memory, batch first: (C,H,W,N) -> (N,C,H,W), (D,N) -> (N,D), and
    filters (C,K,K,F) -> (F,C,K,K). Numbers of the host go to the device as they are."""
    if isinstance(array, np.ndarray) and array.dtype.kind == "i":
        return torch.from_numpy(array)
    turned = torch.from_dlpack(array)
    turned = turned.view(torch.bfloat16) if turned.dtype == torch.uint16 else turned              # ours have no dtype for it
    return turned.permute(turned.ndim - 1, *range(turned.ndim - 1)) if turned.ndim > 1 else turned


def back(turned):
    """Inverse of `tensor`: a NumPy array (of float32 where it was bfloat16)."""
    turned = turned.detach()
    turned = turned.float() if turned.dtype == torch.bfloat16 else turned
    return (turned.permute(*range(1, turned.ndim), 0) if turned.ndim > 1 else turned).contiguous().cpu().numpy()


def laid_out(layout, *tensors):
    """Images (N,C,H,W) in that order; (N,D) has one alone."""
    order = torch.channels_last if layout == "channels last" else torch.contiguous_format
    return [t.contiguous(memory_format=order) if t.ndim == 4 else t.contiguous() for t in tensors]


def padding(window, out):
    """(over_h, over_w): by how many pixels the last windows of `out` outputs reach over a map's end (and its padding)."""
    K, S, P, H, W = window
    return [max(0, (count - 1)*S + K - 2*P - size) for count, size in zip(out, (H, W))]


def padded(x, window):
    """Images with those pixels added: the size rule that rounds up (zfcore.ops.window.output_size)."""
    K, S, P, H, W = window
    h, w = padding(window, [-(-max(size + 2*P - K, 0)//S) + 1 for size in (H, W)])
    return torch.nn.functional.pad(x, (0, w, 0, h))


def conv_forward(layout, window, x, w):
    x, w = laid_out(layout, padded(x, window), w)
    return lambda: torch.conv2d(x, w, None, window[1], window[2])


def conv_bias_relu(layout, window, x, w, b):
    x, w = laid_out(layout, padded(x, window), w)
    return lambda: torch.relu_(torch.conv2d(x, w, b, window[1], window[2]))


def conv_bias_relu_fused(layout, window, x, w, b):
    """The same as one operation of cuDNN, which PyTorch has on a GPU alone."""
    (x, w), (_, S, P, *_) = laid_out(layout, padded(x, window), w), window
    return lambda: torch.cudnn_convolution_relu(x, w, b, [S, S], [P, P], [1, 1], 1)


def conv_pool(form):
    def build(layout, window, x, w, b):
        *window, K, S, P = window
        between = form(layout, window, x, w, b)
        return lambda: torch.nn.functional.max_pool2d(between(), K, S, P, ceil_mode=True, return_indices=True)[:1]
    return build


def conv_gradient(which):
    """Gradient of the data (which = 0) or the filters (1)."""
    def build(layout, window, *arrays):
        K, S, P, H, W = window
        if which:
            x, dy, w = arrays
            x = padded(x, window)
        else:
            dy, w = arrays
            h, v = padding(window, dy.shape[2:])
            x = dy.new_empty((len(dy), w.shape[1], H + h, W + v))               # PyTorch asks for its shape alone
        x, dy, w = laid_out(layout, x, dy, w)

        def call():
            dx, dw, _ = torch.ops.aten.convolution_backward(
                dy, x, w, None, [S, S], [P, P], [1, 1], False, [0, 0], 1, [which == 0, which == 1, False])
            return dw if which else dx[:, :, :H, :W]
        return call
    return build


def pool_forward(layout, window, x):
    x, = laid_out(layout, x)
    K, S, P, _, _ = window

    def call():                                            # the indices are formed too; they count otherwise than switches
        return torch.nn.functional.max_pool2d(x, K, S, P, ceil_mode=True, return_indices=True)[:1]
    return call


def pool_backward(layout, window, x, dy, _):
    x, dy = laid_out(layout, x, dy)
    K, S, P, _, _ = window
    _, indices = torch.nn.functional.max_pool2d(x, K, S, P, ceil_mode=True, return_indices=True)
    return lambda: torch.ops.aten.max_pool2d_with_indices_backward(dy, x, [K, K], [S, S], [P, P], [1, 1], True, indices)


def pool_relu_backward(layout, window, x, dy, switches, _):
    x, = laid_out(layout, x)
    unpooled = pool_backward(layout, window, x, dy, switches)
    return lambda: torch.ops.aten.threshold_backward(unpooled(), x, 0)


def average_forward(layout, window, x):
    x, = laid_out(layout, x)
    K, S, P, _, _ = window
    return lambda: torch.nn.functional.avg_pool2d(x, K, S, P, ceil_mode=True, count_include_pad=False)


def average_backward(layout, window, dy):
    dy, = laid_out(layout, dy)
    K, S, P, H, W = window
    x, = laid_out(layout, dy.new_empty((*dy.shape[:2], H, W)))                  # PyTorch asks for its shape alone
    return lambda: torch.ops.aten.avg_pool2d_backward(dy, x, [K, K], [S, S], [P, P], True, False, None)


def framed(sign):
    """PyTorch's own way back is to pad by the same numbers below 0."""
    def build(layout, window, x):
        x, = laid_out(layout, x)
        top, bottom, left, right = (sign*rim for rim in window)
        return lambda: torch.nn.functional.pad(x, (left, right, top, bottom))
    return build


def norm_forward(layout, window, x):
    x, = laid_out(layout, x)
    return lambda: torch.nn.functional.local_response_norm(x, 5, 1e-4, 0.75, 2.0)


def norm_of_pool(layout, window, x):
    pooled = pool_forward(layout, window, x)

    def call():
        y, = pooled()
        return y, torch.nn.functional.local_response_norm(y, 5, 1e-4, 0.75, 2.0)
    return call


def norm_backward(layout, window, dy, x):
    dy, x = laid_out(layout, dy, x)
    x = x.requires_grad_()
    with torch.enable_grad():
        y = torch.nn.functional.local_response_norm(x, 5, 1e-4, 0.75, 2.0)
    return lambda: torch.autograd.grad(y, x, dy, retain_graph=True)[0]


def normalise_forward(training):
    def build(layout, window, x, gamma, beta, mean, var):
        x, mean, var = *laid_out(layout, x), mean.clone(), var.clone()          # the running ones move with every call

        def call():
            y = torch.nn.functional.batch_norm(x, mean, var, gamma, beta, training, BATCH_MOMENTUM, BATCH_EPS)
            return (y, mean, var) if training else y
        return call
    return build


def normalise_gradient(training):
    """Gradient of a normalisation; in training with the forward pass, whose statistics it needs, and those of gamma and
    beta."""
    def build(layout, window, dy, x, gamma, beta, mean, var):
        (dy, x), mean, var = laid_out(layout, dy, x), mean.clone(), var.clone()

        def forward():
            return torch.ops.aten._batch_norm_impl_index(x, gamma, beta, mean, var, training, BATCH_MOMENTUM, BATCH_EPS, True)
        once = forward()

        def call():
            _, *saved, reserve, library = forward() if training else once
            dx, *others = torch.ops.aten._batch_norm_impl_index_backward(
                library, x, dy, gamma, mean, var, *saved, training, BATCH_EPS, [True, training, training], reserve)
            return (dx, *others) if training else dx
        return call
    return build


def linear_forward(layout, window, x, w, b):
    x, w = x.contiguous(), w.contiguous()                  # (N,D), (M,D)
    return lambda: torch.nn.functional.linear(x, w, b)


def linear_backward(layout, window, dy, x, w):
    dy, x, w = dy.contiguous(), x.contiguous(), w.contiguous()
    return lambda: (dy @ w, dy.T @ x, dy.sum(0))


def loss_forward(layout, window, logits, labels):
    logits, labels = logits.contiguous(), labels.to(logits.device)
    return lambda: torch.nn.functional.cross_entropy(logits, labels)


def loss_backward(layout, window, p, labels):
    log_p, labels = p.contiguous().log(), labels.long().to(p.device)
    one, count = log_p.new_ones(()), log_p.new_full((), len(labels))

    def call():
        each = torch.ops.aten.nll_loss_backward(one, log_p, labels, None, 1, -100, count)
        return torch.ops.aten._log_softmax_backward_data(each, log_p, 1, log_p.dtype)
    return call


def sgd(layout, window, *arrays):
    """PyTorch's own step for all parameters at once. It keeps the learning rate outside the velocity: v = -v'/lr."""
    w = [a.clone().contiguous() for a in arrays[0::3]]
    optimizer = torch.optim.SGD(w, LR, MOMENTUM, weight_decay=DECAY, fused=True)
    for parameter, dw, v in zip(w, arrays[1::3], arrays[2::3]):
        parameter.grad = dw.contiguous()
        optimizer.state[parameter]["momentum_buffer"] = -v.contiguous()/LR

    def call():
        optimizer.step()
        return tuple(w)
    return call


def elementwise(function):
    return lambda layout, window, *tensors: lambda: function(*tensors)


def without_output(function):
    """Call whose output cannot be compared: other random numbers."""
    def call(*tensors):
        function(*tensors)
    return elementwise(call)


TORCH = {                         # (noun, what) -> build(layout, window, tensors...) -> a call that runs the operation
    ("conv2d", "forward"): conv_forward,
    ("conv2d", "forward, bias and ReLU"): conv_bias_relu,
    ("conv2d_maxpool", "forward with its pool"): conv_pool(conv_bias_relu),
    ("conv2d", "data gradient"): conv_gradient(0),
    ("conv2d", "weight gradient"): conv_gradient(1),
    ("conv2d", "bias gradient"): lambda layout, window, dy: lambda dy=laid_out(layout, dy)[0]: dy.sum((0, 2, 3)),
    ("maxpool", "forward"): pool_forward,
    ("maxpool", "backward"): pool_backward,
    ("maxpool", "backward and ReLU's"): pool_relu_backward,
    ("avgpool", "forward"): average_forward,
    ("avgpool", "backward"): average_backward,
    ("pad", "forward"): framed(1),
    ("pad", "backward"): framed(-1),
    ("local_response_norm", "forward"): norm_forward,
    ("local_response_norm", "forward with its pool"): norm_of_pool,
    ("local_response_norm", "backward"): norm_backward,
    ("batch_norm", "normalised, forward in training"): normalise_forward(True),
    ("batch_norm", "normalised, forward in evaluation"): normalise_forward(False),
    ("batch_norm", "normalised, there and back in training"): normalise_gradient(True),
    ("batch_norm", "normalised, data gradient in evaluation"): normalise_gradient(False),
    ("relu", "forward"): elementwise(lambda x: torch.relu(x)),
    ("relu", "backward"): elementwise(lambda dy, y: torch.ops.aten.threshold_backward(dy, y, 0)),
    ("dropout", "forward"): without_output(lambda x: torch.nn.functional.dropout(x, 0.5)),
    ("linear", "forward"): linear_forward,
    ("linear", "backward"): linear_backward,
    ("linear", "bias gradient"): lambda layout, window, dy: lambda dy=dy.contiguous(): dy.sum(0),
    ("softmax_loss", "alone"): lambda layout, window, logits: lambda z=logits.contiguous(): torch.softmax(z, 1),
    ("softmax_loss", "forward"): loss_forward,
    ("softmax_loss", "backward"): loss_backward,
    ("sgd_step", "all parameters"): sgd,
}
FUSED = {("conv2d", "forward, bias and ReLU"): conv_bias_relu_fused,
         ("conv2d_maxpool", "forward with its pool"): conv_pool(conv_bias_relu_fused)}
NOT_CAPTURED = {("local_response_norm", "backward"), ("sgd_step", "all parameters")}   # autograd, an optimizer: Python between


# ------------------------------------------------------------------------------------- cuDNN, without a framework
def with_frontend(name, layout, case, sets, clock):
    """One convolution as cuDNN's graph; of its plans in that precision the one that is fastest here."""
    xp = array_module(sets[0][0])
    short = case.precision == "bf16"
    roles = {"forward": ("x", "w"), "data gradient": ("dy", "w"), "weight gradient": ("x", "dy", "w")}[case.what]
    K, S, P, H, W = case.window
    handle = cudnn.create_handle()
    cudnn.set_stream(handle=handle, stream=clock.stream.ptr)
    float32, stored = cudnn.data_type.FLOAT, cudnn.data_type.BFLOAT16 if short else cudnn.data_type.FLOAT
    graph = cudnn.pygraph(io_data_type=stored, intermediate_data_type=float32, compute_data_type=float32, handle=handle)

    def turned(array):
        """batch last -> (memory, dims, strides) with dims (N,C,H,W), strides in elements."""
        axes = (3, 0, 1, 2) if layout == "channels first" else (3, 1, 2, 0)
        memory = xp.ascontiguousarray(array.transpose(axes))
        memory = convert(memory, BF16) if short else memory
        seen = memory if layout == "channels first" else memory.transpose(0, 3, 1, 2)
        return memory, list(seen.shape), [step//seen.itemsize for step in seen.strides]

    def widened(x):
        out = [-(-max(size + 2*P - K, 0)//S) + 1 for size in (H, W)]
        h, w = padding(case.window, out)
        return xp.pad(x, ((0, 0), (0, h), (0, w), (0, 0)))

    ready = []                                             # per set: {role: memory}
    for arrays in sets:
        given = dict(zip(roles, arrays))
        if "x" in given:
            given["x"] = widened(given["x"])
        if case.what == "forward":
            out = [(size + 2*P - K)//S + 1 for size in given["x"].shape[1:3]]
            given["y"] = xp.empty((given["w"].shape[3], *out, given["x"].shape[3]), np.float32)
        elif case.what == "data gradient":
            h, w = padding(case.window, given["dy"].shape[1:3])
            given["dx"] = xp.empty((given["w"].shape[0], H + h, W + w, given["dy"].shape[3]), np.float32)
        else:
            given["dw"] = xp.empty(given.pop("w").shape, np.float32)
        ready.append({role: turned(array) for role, array in given.items()})

    nodes = {role: graph.tensor(dim=dims, stride=strides, name=role)
             for role, (_, dims, strides) in ready[0].items() if role not in ("y", "dx", "dw")}
    how = dict(padding=[P, P], stride=[S, S], dilation=[1, 1])
    if case.what == "forward":
        role, node = "y", graph.conv_fprop(image=nodes["x"], weight=nodes["w"], **how)
    elif case.what == "data gradient":
        role, node = "dx", graph.conv_dgrad(loss=nodes["dy"], filter=nodes["w"], **how)
    else:
        role, node = "dw", graph.conv_wgrad(image=nodes["x"], loss=nodes["dy"], **how)
    _, dims, strides = ready[0][role]
    node.set_output(True).set_dim(dims).set_stride(strides)
    nodes[role] = node

    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    if not short:                                          # no plan that stores float32 factors as something shorter
        note = cudnn.numerical_note
        graph.deselect_numeric_notes([note.DOWN_CONVERT_INPUTS] + [note.TENSOR_CORE]*(case.precision != "tf32"))
    graph.deselect_workspace_greater_than(WORKSPACE)
    graph.check_support()
    packs = [{nodes[role]: memory.data.ptr for role, (memory, _, _) in of_set.items()} for of_set in ready]
    workspace = xp.empty(WORKSPACE, np.uint8)

    def run(plan):
        for pack in packs:
            graph.execute_plan_at_index(pack, workspace.data.ptr, plan, handle)

    clock.wait()
    times = {}
    for plan in range(min(graph.get_execution_plan_count(), PLANS)):
        try:
            graph.build_plan_at_index(plan)
            run(plan)
            times[plan] = min(clock.seconds(lambda: run(plan)) for _ in range(3))
        except (cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError):          # not on this GPU, or deselected
            continue
    if not times:
        raise RuntimeError(f"cuDNN has no plan in {case.precision} for it")
    best = min(times, key=times.get)

    def output():
        run(best)
        clock.wait()
        memory = ready[0][role][0]
        memory = in_float(memory)
        got = memory.transpose((1, 2, 3, 0) if layout == "channels first" else (3, 1, 2, 0))
        return [to_host(xp.ascontiguousarray(got[:, :H, :W] if role == "dx" else got))]

    return Contestant(name, lambda: run(best), len(sets), output)
