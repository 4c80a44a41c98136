"""Linear classifiers on features: at the minimum of F, as scikit-learn's, and with C from pictures that they have not seen."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zfcore.analysis import probing
from zfcore.analysis.probing import GRID, choose, feature_layers, fit, gram_matrix, held_out, probe, random_projection
from zfcore.check import Expected
from zfcore.models import build
from zfcore.ops.hinge_loss import hinge_loss_reference


def problem(seed=0, n=37, D=11, M=4, apart=0.7):
    """Features (n,D) of M overlapping classes, and their labels; every class occurs."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % M)
    return rng.normal(size=(n, D)) + apart*rng.normal(size=(M, D))[labels], labels


def weights(u, x):
    """w (D,M) and b (M,) of what `fit` gives for the Gram matrix of x (n,D)."""
    return x.T @ u[:, :-1].T, u[:, -1]


def F(kind, w, b, x, labels, C):
    """As the docstring has it, from the obvious formulas."""
    z = (x @ w + b).T                                                          # (M,n)
    if kind == "svm":
        loss = len(x)*hinge_loss_reference(z, labels)
    else:
        loss = sum(np.log(np.exp(column).sum()) - column[label] for column, label in zip(z.T, labels))
    return np.square(w).sum()/2 + C*loss


def accuracy(scores, labels, rows):
    return (scores.argmax(axis=0) == labels).mean()


# ------------------------------------------------------------------------------------------- as many features a layer
def test_a_projection_keeps_inner_products_alike_however_many_features_there_are():
    rng, D, errors = np.random.default_rng(2), 400, []
    for features in (31, 400, 5001):
        x = rng.normal(size=(60, features)).astype(np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        y = random_projection(x, D)
        assert y.shape == (60, D) and y.dtype == np.float32
        errors.append(np.sqrt(np.square(y @ y.T - x @ x.T)[~np.eye(60, dtype=bool)].mean()))
        assert np.square(y).sum(axis=1).mean() == pytest.approx(1, abs=0.05)
    assert errors == pytest.approx([D**-0.5]*3, rel=0.15)


def test_a_projection_is_one_matrix_of_its_seed_whatever_the_blocks_and_the_pictures(monkeypatch):
    x = np.random.default_rng(3).normal(size=(7, 53)).astype(np.float32)
    matrix = random_projection(np.eye(53, dtype=np.float32), 11)
    assert np.allclose(random_projection(x, 11), x @ matrix, atol=1e-5)
    assert not np.allclose(random_projection(x, 11, seed=1), x @ matrix, atol=0.1)
    monkeypatch.setattr(probing, "COLUMNS", 8)
    assert np.allclose(random_projection(x, 11), x @ matrix, atol=1e-5)
    with pytest.raises(Expected, match="random projection: features: expected a number above 0"):
        random_projection(x, 0)


# ---------------------------------------------------------------------------------------------------- the minimum of F
@pytest.mark.parametrize("kind", GRID)
@pytest.mark.parametrize("C", [0.03, 1, 40])
def test_the_slope_of_F_is_zero_in_every_weight_and_bias(kind, C):
    x, labels = problem(seed=1)
    w, b = weights(fit(kind, x @ x.T, labels, 4, C, tolerance=1e-9), x)
    step = 1e-5
    for array in (w, b):
        for place in np.ndindex(array.shape):
            values = []
            for sign in (1, -1):
                array[place] += sign*step
                values.append(F(kind, w, b, x, labels, C))
                array[place] -= sign*step
            assert abs(values[0] - values[1])/(2*step) < 2e-5*max(1, C)


@given(st.integers(0, 10**6), st.sampled_from(sorted(GRID)), st.integers(5, 19), st.integers(1, 23), st.integers(2, 5),
       st.sampled_from([0.1, 1, 30]))
@settings(deadline=None, max_examples=25)
def test_no_other_classifier_has_a_lower_F(seed, kind, n, D, M, C):
    x, labels = problem(seed, n, D, M)
    w, b = weights(fit(kind, x @ x.T, labels, M, C), x)
    least = F(kind, w, b, x, labels, C)
    rng = np.random.default_rng(seed)
    for size in (1e-3, 0.1, 1):
        assert F(kind, w + size*rng.normal(size=w.shape), b + size*rng.normal(size=b.shape), x, labels, C) > least*(1 - 1e-7)
        assert F(kind, w*(1 - size), b, x, labels, C) > least*(1 - 1e-7)


def test_a_fit_that_begins_elsewhere_ends_at_the_same_place():
    x, labels = problem(seed=2, n=29)
    G = x @ x.T
    for kind in GRID:
        other = fit(kind, G, labels, 4, 30)
        ends = [weights(fit(kind, G, labels, 4, 0.3, start, 1e-8), x) for start in (None, other)]
        assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(*ends))


def test_a_picture_that_stands_there_twice_counts_twice():
    x, labels = problem(seed=3, n=23)
    twice = np.concatenate([x, x]), np.concatenate([labels, labels])
    for kind in GRID:
        w, b = weights(fit(kind, x @ x.T, labels, 4, 2, tolerance=1e-8), x)
        w2, b2 = weights(fit(kind, twice[0] @ twice[0].T, twice[1], 4, 1, tolerance=1e-8), twice[0])
        assert np.allclose(w, w2, atol=1e-6) and np.allclose(b, b2, atol=1e-6)


def test_what_has_no_minimum_within_the_steps_is_said(monkeypatch):
    monkeypatch.setattr(probing, "MOST_STEPS", 1)
    x, labels = problem()
    with pytest.raises(Expected, match="softmax with C = 100: expected a minimum within 1 Newton steps"):
        fit("softmax", x @ x.T, labels, 4, 100)


# -------------------------------------------------------------------------------------------------------- scikit-learn
@pytest.mark.parametrize("n, D, M", [(41, 7, 3), (31, 53, 5)])
@pytest.mark.parametrize("C", [0.1, 10])
def test_softmax_is_scikit_learns_logistic_regression(n, D, M, C):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, labels = problem(4, n, D, M)
    theirs = linear_model.LogisticRegression(C=C, tol=1e-10, max_iter=10000).fit(x, labels)
    w, b = weights(fit("softmax", x @ x.T, labels, M, C, tolerance=1e-9), x)
    assert np.allclose(w.T, theirs.coef_, atol=1e-4)
    assert np.allclose(b - b.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=1e-4)     # a common bias is free


@pytest.mark.parametrize("n, D, M", [(41, 7, 3), (31, 53, 5)])
@pytest.mark.parametrize("C", [0.1, 10])
def test_svm_is_scikit_learns_linear_svc(n, D, M, C):
    svm = pytest.importorskip("sklearn.svm")
    x, labels = problem(5, n, D, M)
    # LinearSVC shrinks the bias too, divided by intercept_scaling: with a large one hardly
    theirs = svm.LinearSVC(C=C, dual=False, tol=1e-10, max_iter=10**5, intercept_scaling=300).fit(x, labels)
    w, b = weights(fit("svm", x @ x.T, labels, M, C, tolerance=1e-9), x)
    assert np.allclose(w.T, theirs.coef_, atol=1e-3) and np.allclose(b, theirs.intercept_, atol=1e-3)


def test_probe_says_of_test_pictures_what_scikit_learn_says():
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, labels = problem(6, n=60, D=9)
    train, test = np.arange(0, 60, 2), np.arange(1, 60, 2)
    found = probe("softmax", x, train, labels[train], test, 4, held_out(labels[train]), accuracy)
    centred = x - x[train].mean(axis=0)
    centred /= np.sqrt(np.square(centred[train]).sum(axis=1).mean())
    theirs = linear_model.LogisticRegression(C=found.C, tol=1e-10, max_iter=10000).fit(centred[train], labels[train])
    scores = found.scores - found.scores.mean(axis=0)
    expected = theirs.decision_function(centred[test]).T
    assert np.allclose(scores, expected - expected.mean(axis=0), atol=1e-3)


# ---------------------------------------------------------------------------------------------------- standardisation
def test_a_training_picture_has_mean_0_and_mean_square_length_1_and_test_pictures_change_nothing():
    x, _ = problem(7, n=21, D=13)
    train = np.array([0, 3, 5, 8, 9, 13, 20])
    G, scale = gram_matrix(x, train)
    centred = (x[train] - x[train].mean(axis=0))/scale
    assert np.allclose(G, centred @ centred.T) and np.trace(G)/7 == pytest.approx(1) and np.array_equal(G, G.T)
    moved = x.copy()
    moved[np.setdiff1d(np.arange(21), train)] += 100
    assert np.array_equal(gram_matrix(moved, train)[0], G)


@pytest.mark.parametrize("kind", GRID)
def test_moving_and_scaling_the_features_changes_no_score(kind):
    x, labels = problem(8, n=30, D=6)
    train, test = np.arange(20), np.arange(20, 30)
    rest = (train, labels[train], test, 4, held_out(labels[train]), accuracy)
    one, other = probe(kind, x, *rest), probe(kind, 7*x + np.arange(6), *rest)
    assert one.C == other.C and np.allclose(one.scores, other.scores, atol=1e-3*np.abs(one.scores).max())


def test_neither_the_blocks_of_columns_nor_those_of_rows_show(monkeypatch):
    x, labels = problem(9, n=43, D=31)
    train, test = np.arange(29), np.arange(29, 43)
    rest = (train, labels[train], test, 4, held_out(labels[train]), accuracy)
    whole = probe("svm", x, *rest)
    monkeypatch.setattr(probing, "COLUMNS", 7)
    monkeypatch.setattr(probing, "ROWS", 5)

    class Columns:                                         # what an HDF5 file gives
        shape = x.shape

        def __getitem__(self, place):
            rows, columns = place
            assert rows == slice(None) and columns.stop - columns.start <= 7
            return x[:, columns]

    pieces = probe("svm", Columns(), *rest)
    assert pieces.C == whole.C and np.allclose(pieces.scores, whole.scores, atol=1e-9)


def test_features_that_do_not_vary_or_are_not_finite():
    labels = np.array([0, 1]*4)
    rest = (np.arange(8), labels, np.arange(8), 2, held_out(labels), accuracy)
    assert np.isfinite(probe("svm", np.ones((8, 3)), *rest).scores).all()
    with pytest.raises(Expected, match="features: expected finite values"):
        probe("svm", np.full((8, 3), np.nan), *rest)
    with pytest.raises(Expected, match="probe: expected one of svm, softmax, got 'knn'"):
        probe("knn", np.ones((8, 3)), *rest)


# ------------------------------------------------------------------------------------------------------------ choice of C
def test_a_third_of_each_class_is_held_out():
    labels = np.repeat(np.arange(5), [1, 2, 3, 8, 30])
    held = held_out(labels, 3)
    assert [int(held[labels == c].sum()) for c in range(5)] == [0, 1, 1, 2, 10]
    assert np.array_equal(held, held_out(labels, 3)) and not np.array_equal(held, held_out(labels, 4))


@pytest.mark.parametrize("kind", GRID)
def test_C_is_judged_on_pictures_that_the_classifier_has_not_seen(kind):
    x, labels = problem(10, n=40)
    G, held = x @ x.T, held_out(labels)
    seen = []
    choose(kind, G, labels, 4, held, lambda scores: seen.append(scores) or 0)
    assert len(seen) == len(GRID[kind])
    for C, scores in zip(GRID[kind], seen):
        w, b = weights(fit(kind, G[np.ix_(~held, ~held)], labels[~held], 4, C, tolerance=1e-8), x[~held])
        expected = (x[held] @ w + b).T
        assert np.allclose(scores, expected, atol=5e-3*np.abs(expected).max())


def test_the_best_C_is_taken_and_of_equals_the_smallest():
    x, labels = problem(11)
    for values, chosen in (([0.1, 0.4, 0.3, 0.4, 0.2], 0.3), ([0, 0, 0, 0, 1], 10), ([2]*5, 0.1)):
        told = iter(values)
        C, reached = choose("svm", x @ x.T, labels, 4, held_out(labels), lambda scores: next(told))
        assert C == chosen and reached.tolist() == values


def test_without_held_out_pictures_the_middle_C_is_taken():
    x, labels = problem(12, n=4)                           # one of each class
    found = probe("svm", x, np.arange(4), labels, np.arange(4), 4, held_out(labels), accuracy)
    assert found.C == 1 and np.isnan(found.held_out).all() and len(found.held_out) == len(found.grid) == 5


def test_the_final_classifier_is_trained_on_held_out_pictures_too_and_the_measure_gets_their_rows():
    x, labels = problem(13, n=50)
    train, test = np.arange(5, 35), np.arange(35, 50)
    held = held_out(labels[train])
    rows = []
    found = probe("svm", x, train, labels[train], test, 4, held,
                  lambda scores, truth, of: rows.append(of) or accuracy(scores, truth, of))
    assert all(np.array_equal(of, train[held]) for of in rows)
    G, scale = gram_matrix(x, train)
    w, b = weights(fit("svm", G, labels[train], 4, found.C), (x[train] - x[train].mean(axis=0))/scale)
    assert np.allclose(found.scores, ((x[test] - x[train].mean(axis=0))/scale @ w + b).T, atol=1e-6)
    assert found.coefficients.shape == (4, 30) and found.kind == "svm"


def test_classes_that_lie_apart_are_told_apart():
    x, labels = problem(14, n=60, D=5, apart=12)
    for kind in GRID:
        found = probe(kind, x, np.arange(40), labels[:40], np.arange(40, 60), 4, held_out(labels[:40]), accuracy)
        assert (found.scores.argmax(axis=0) == labels[40:]).all()


# --------------------------------------------------------------------------------------------------- what is a feature
@pytest.mark.parametrize("model, expected", [
    ("zfnet", {1: "norm1", 2: "norm2", 3: "relu3", 4: "relu4", 5: "pool5", 6: "relu6", 7: "relu7"}),
    ("zfnet-without-3-4", {1: "norm1", 2: "norm2", 5: "pool5", 6: "relu6", 7: "relu7"}),
    ("zfnet-without-6-7", {1: "norm1", 2: "norm2", 3: "relu3", 4: "relu4", 5: "pool5"})])
def test_features_are_what_a_layer_hands_on_after_relu_pooling_and_normalisation(model, expected):
    try:
        network = build(model, 10, 224)
    except Expected:
        pytest.skip(f"no {model}")
    assert feature_layers(network) == expected
