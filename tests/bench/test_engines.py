"""Other engines on the CPU compute what ours computes, where windows reach over the border too."""
import numpy as np
import pytest

from bench import engines
from zfcore.models.zfnet import tiny
from zfcore.ops.softmax_loss import softmax_loss, softmax_loss_backward

SLOW = "torch.compile",                                    # minutes of compiling: `bench cpu` checks it each time
THERE = [pytest.param(engine, id=engine.name) for engine in engines.installed() if engine.name not in SLOW]


def network_and_pictures():
    """conv1 and pool1 reach over at 52 pixels, no two axes are as long, and nothing is dropped, which would be at random."""
    rng = np.random.default_rng(3)
    return tiny(7, 52,
                keep_prob=1).init(1, "he"), rng.uniform(-128, 128, (3, 52, 52, 5)).astype(np.float32), rng.integers(0, 7, 5)


@pytest.mark.parametrize("engine", THERE)
def test_scores_are_ours(engine):
    network, x, _ = network_and_pictures()
    ours, _ = network.forward(x)
    np.testing.assert_allclose(engine.forward(network, x)(), ours, rtol=0, atol=1e-5*abs(ours).max())


@pytest.mark.parametrize("layout", engines.LAYOUTS)
def test_pytorchs_gradients_are_ours(layout):
    torch = pytest.importorskip("torch")
    network, x, labels = network_and_pictures()
    scores, caches = network.forward(x, 0)
    _, grads = network.backward(softmax_loss_backward(softmax_loss(scores, labels)[1]), caches, to_pixels=False)
    twin = engines.torch_network(network)
    torch.nn.functional.cross_entropy(twin(engines.torch_images(x, layout)), torch.from_numpy(labels)).backward()
    modules = [module for module in twin if hasattr(module, "weight")]
    for module, name in zip(modules, network.parameters(), strict=True):
        dw = np.moveaxis(grads[name]["w"], -1, 0)
        np.testing.assert_allclose(module.weight.grad.numpy(), dw, rtol=0, atol=1e-4*abs(dw).max(), err_msg=name)


def test_pytorch_steps_by_its_quickest_optimizer_and_as_by_its_plain_one(monkeypatch):
    torch = pytest.importorskip("torch")
    network, x, labels = network_and_pictures()
    images, labels, made, sgd = engines.torch_images(x, engines.LAYOUTS[1]), torch.from_numpy(labels), [], torch.optim.SGD

    def weights_after_two_steps(**changed):
        twin = engines.torch_network(network)
        monkeypatch.setattr(torch.optim, "SGD", lambda *args, **how: made.append(how) or sgd(*args, **how | changed))
        learn = engines.torch_learner(twin)
        learn(images, labels)
        learn(images, labels)
        return [parameter.detach().numpy() for parameter in twin.parameters()]
    for quick, plain in zip(weights_after_two_steps(), weights_after_two_steps(fused=False), strict=True):
        np.testing.assert_allclose(quick, plain, rtol=1e-5, atol=1e-7)
    assert made[0]["fused"] is True


def test_jaxs_step_is_the_gradient_of_our_loss():
    jax = pytest.importorskip("jax")
    network, x, labels = network_and_pictures()
    scores, caches = network.forward(x, 0)
    _, grads = network.backward(softmax_loss_backward(softmax_loss(scores, labels)[1]), caches, to_pixels=False)
    for name, of_layer in engines.jax_gradient(network, x, labels)().items():
        for key, theirs in jax.device_get(of_layer).items():
            np.testing.assert_allclose(theirs, grads[name][key], rtol=0, atol=1e-4*abs(grads[name][key]).max())


def test_engines_that_cannot_train_have_no_step_beside_ours(monkeypatch):
    monkeypatch.setattr(engines, "installed", lambda: [engines.Engine("runs", "sys", lambda *_: print),
                                                       engines.Engine("both", "sys", None, lambda *_: print)])
    assert list(engines.contestants(None, None, [0])) == ["both"]
    assert list(engines.contestants(None, None, None, ["both"])) == ["runs"]
