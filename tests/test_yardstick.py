"""Twenty training steps of a small ZFNet equal PyTorch's from the same start, to float32 rounding."""
import numpy as np
import pytest

from zfcore.layers import BatchNorm, Conv, Flatten, Linear, LocalResponseNorm, MaxPool, ReLU
from zfcore.network import Network
from zfcore.ops.softmax_loss import softmax_loss, softmax_loss_backward
from zfcore.optim import SGD

torch = pytest.importorskip("torch")
nn = torch.nn


def ours():
    """3x27x27 -> conv 7/2: 11 (the windows fit exactly) -> pool 5 -> conv 3/2: 2 -> conv: 2; no size needs the ceil rule."""
    return Network("small", (3, 27, 27), [
        Conv("conv1", 8, K=7, S=2), ReLU("relu1"), MaxPool("pool1", K=3, S=2), LocalResponseNorm("norm1", alpha=0.1),
        Conv("conv2", 12, K=3, S=2), ReLU("relu2"), Conv("conv3", 10, K=3, P=1), ReLU("relu3"),
        Flatten("flatten"), Linear("fc6", 20), ReLU("relu6"), Linear("fc8", 5)]).init(5, "he")


def theirs(network):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.LocalResponseNorm(5, 0.1, 0.75, 2.0),
        nn.Conv2d(8, 12, 3, 2), nn.ReLU(), nn.Conv2d(12, 10, 3, 1, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(40, 20), nn.ReLU(), nn.Linear(20, 5))
    with_parameters = [m for m in model if hasattr(m, "weight")]
    for module, of_layer in zip(with_parameters, network.parameters().values()):
        w = of_layer["w"]                                  # (C,K,K,F) -> (F,C,K,K); (D,M) -> (M,D)
        module.weight.data = torch.tensor(w.transpose(3, 0, 1, 2).copy() if w.ndim == 4 else w.T.copy())
        module.bias.data = torch.tensor(of_layer["b"])
    return model, with_parameters


def test_twenty_steps_give_pytorchs_losses_and_weights():
    network = ours()
    model, modules = theirs(network)
    rng = np.random.default_rng(0)
    pictures = rng.uniform(-128, 128, (40, 3, 27, 27)).astype(np.float32)
    labels = rng.integers(0, 5, 40)
    optimizer = SGD(network, momentum=0.9, weight_decay=1e-3, rms_max=None)
    decayed = [{"params": [m.weight for m in modules], "weight_decay": 1e-3}, {"params": [m.bias for m in modules]}]
    peer, criterion = torch.optim.SGD(decayed, lr=0.02, momentum=0.9), nn.CrossEntropyLoss()
    losses = []
    for step in range(20):
        batch = rng.permutation(40)[:16]
        y, caches = network.forward(np.ascontiguousarray(pictures[batch].transpose(1, 2, 3, 0)), step)
        loss, cache = softmax_loss(y, labels[batch])
        optimizer.step(network, network.backward(softmax_loss_backward(cache), caches, to_pixels=False)[1], 0.02)
        peer.zero_grad()
        peer_loss = criterion(model(torch.tensor(pictures[batch])), torch.tensor(labels[batch]))
        peer_loss.backward()
        peer.step()
        losses.append((loss, peer_loss.item()))
    mine, peers = np.array(losses).T
    np.testing.assert_allclose(mine, peers, rtol=2e-5)
    assert mine[-5:].mean() < 0.9*mine[:5].mean()             # and they learn
    for module, of_layer in zip(modules, network.parameters().values()):
        w = of_layer["w"].transpose(3, 0, 1, 2) if of_layer["w"].ndim == 4 else of_layer["w"].T
        np.testing.assert_allclose(w, module.weight.detach().numpy(), rtol=1e-3, atol=2e-6)
        np.testing.assert_allclose(of_layer["b"], module.bias.detach().numpy(), rtol=1e-3, atol=2e-6)


def test_ten_steps_with_batch_norms_give_pytorchs_losses_parameters_and_running_statistics():
    network = Network("normalised", (3, 11, 11), [
        Conv("conv1", 8, K=3, S=2), BatchNorm("bn1"), ReLU("relu1"),
        Conv("conv2", 6, K=3, P=1), BatchNorm("bn2", momentum=0.3), ReLU("relu2"), Flatten("flatten"),
        Linear("fc6", 20), BatchNorm("bn6", eps=1e-3), ReLU("relu6"), Linear("fc7", 5)]).init(5, "he")
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 6, 3, 1, 1), nn.BatchNorm2d(6, momentum=0.3), nn.ReLU(), nn.Flatten(),
        nn.Linear(150, 20), nn.BatchNorm1d(20, eps=1e-3), nn.ReLU(), nn.Linear(20, 5))
    modules = [m for m in model if hasattr(m, "weight")]
    for module, layer in zip(modules, [layer for layer in network.layers if layer.parameters], strict=True):
        if layer.has_weights:
            module.weight.data = torch.tensor(turned(layer.parameters["w"]).copy())
            module.bias.data = torch.tensor(layer.parameters["b"].copy())
    rng = np.random.default_rng(0)
    optimizer = SGD(network, momentum=0.9, weight_decay=1e-3, rms_max=None)
    weights = [m.weight for m in modules if not hasattr(m, "running_mean")]
    others = [p for p in model.parameters() if all(p is not w for w in weights)]
    decayed = [{"params": weights, "weight_decay": 1e-3}, {"params": others}]
    peer, criterion = torch.optim.SGD(decayed, lr=0.02, momentum=0.9), nn.CrossEntropyLoss()
    for step in range(10):
        pictures, labels = rng.uniform(-128, 128, (17, 3, 11, 11)).astype(np.float32), rng.integers(0, 5, 17)
        y, caches = network.forward(np.ascontiguousarray(pictures.transpose(1, 2, 3, 0)), step)
        loss, cache = softmax_loss(y, labels)
        optimizer.step(network, network.backward(softmax_loss_backward(cache), caches, to_pixels=False)[1], 0.02)
        peer.zero_grad()
        peer_loss = criterion(model(torch.tensor(pictures)), torch.tensor(labels))
        peer_loss.backward()
        peer.step()
        assert loss == pytest.approx(peer_loss.item(), rel=1e-4)
    for module, layer in zip(modules, [layer for layer in network.layers if layer.parameters]):
        pairs = zip(layer.parameters.values(), (module.weight, module.bias))
        kept = zip(layer.buffers.values(), (module.running_mean, module.running_var)) if layer.buffers else ()
        for mine, theirs in (*pairs, *kept):
            theirs = theirs.detach().numpy()
            error = 1e-4*np.abs(theirs).max() + 1e-7            # a bias below a BatchNorm has no gradient but rounding
            np.testing.assert_allclose(turned(mine), theirs, rtol=0, atol=error, err_msg=layer.name)


def turned(w):
    """(C,K,K,F) -> (F,C,K,K); (D,M) -> (M,D); vectors stay."""
    return np.moveaxis(w, -1, 0) if w.ndim > 1 else w
