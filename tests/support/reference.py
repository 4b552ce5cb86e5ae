"""Attention, recurrence and decoding in plain NumPy float64, written from the papers, not from the layers."""

import itertools
import math

import numpy as np


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def sparsemax(z):
    """The nearest point of the simplex, by trying every support: the projection onto each is known in closed form."""
    best, nearest = None, math.inf
    for size in range(1, len(z) + 1):
        for support in map(list, itertools.combinations(range(len(z)), size)):
            point = np.zeros(len(z))
            point[support] = z[support] - (z[support].sum() - 1.0) / size
            distance = ((point - z) ** 2).sum()
            if (point >= 0).all() and distance < nearest:
                best, nearest = point, distance
    return best


def hardmax(z):
    chosen = np.zeros(len(z))
    chosen[int(np.argmax(z))] = 1.0
    return chosen


NORMALISERS = {"softmax": softmax, "sparsemax": sparsemax, "hardmax": hardmax}


def monotonic(p, before):
    """q[j] = (1 - p[j-1]) q[j-1] + a_before[j]; a[j] = p[j] q[j] (Raffel et al. 2017, equation 9)."""
    weights = np.zeros(len(p))
    q = 0.0
    for j in range(len(p)):
        q = (1.0 - p[j - 1]) * q + before[j] if j else before[0]
        weights[j] = p[j] * q
    return weights


def hard_monotonic(p, before):
    """The first position at or after the one before whose p is 1; nothing where there is none."""
    weights = np.zeros(len(p))
    for j in range(int(np.argmax(before)), len(p)):
        if p[j] == 1.0:
            weights[j] = 1.0
            break
    return weights


def score(name, query, value, weights, position=0, coverage=None):
    """The score of one query vector and one value vector (Luong et al. 2015, equations 7 and 8; Bahdanau et al. 2015).

    `position` is where the value stands; `coverage` the sum of the weights that it had at earlier steps.
    """
    covered = 0.0 if coverage is None else weights["coverage_vector"] * coverage
    if name == "dot":
        found = query @ value
    elif name == "scaled_dot":
        found = query @ value / math.sqrt(len(query))
    elif name == "general":
        found = query @ weights["kernel"] @ value
    elif name == "concat":
        # W_a [h_t ; h_s], with W_a the two kernels side by side
        stacked = np.concatenate([weights["query_kernel"], weights["key_kernel"]])
        found = weights["vector"] @ np.tanh(np.concatenate([query, value]) @ stacked + covered)
    elif name == "additive":
        hidden = np.tanh(query @ weights["query_kernel"] + value @ weights["key_kernel"] + covered)
        found = weights["vector"] @ hidden
    elif name == "normalized_additive":
        v = weights["factor"] * weights["vector"] / np.linalg.norm(weights["vector"])
        inner = query @ weights["query_kernel"] + value @ weights["key_kernel"] + weights["bias"]
        found = v @ np.tanh(inner + covered)
    elif name == "location":
        found = query @ weights["kernel"][:, position]
    elif name == "cosine":
        norms = np.linalg.norm(query) * np.linalg.norm(value)
        found = query @ value / norms if norms > 0 else 0.0
    else:
        raise KeyError(name)
    return float(found) * float(weights.get("scale", 1.0))


def window_centre(window, step, length, query, weights):
    """`p_t`, and the position that the window is about (Luong et al. 2015, section 3.2)."""
    if window == "local_m":
        return None, min(step, length - 1)
    share = sigmoid(weights["position_vector"] @ np.tanh(query @ weights["position_kernel"]))
    return length * share, min(math.floor(length * share), length - 1)


def attend(
    name,
    query,
    value,
    weights,
    mask,
    query_mask=None,
    window=None,
    half_width=10,
    alignment="softmax",
    use_coverage=False,
    causal=False,
):
    """Loops over rows, steps and positions: contexts `(B, T, Dv)`, weights `(B, T, S)`, and the state that remains."""
    batch, steps, positions = len(query), query.shape[1], value.shape[1]
    found, walked = np.zeros((batch, steps, positions)), np.zeros((batch, positions))
    done = np.zeros(batch, int)  # real queries before this one: a masked query changes nothing
    for b in range(batch):
        length = max([s + 1 for s in range(positions) if mask[b, s]], default=0)
        before, coverage = np.eye(positions)[0], np.zeros(positions)
        for t in range(steps):
            if query_mask is not None and not query_mask[b, t]:
                continue
            real = [s for s in range(positions) if mask[b, s] and (s <= t or not causal)]
            centre = None
            if window is not None:
                centre, middle = window_centre(window, done[b], length, query[b, t], weights)
                real = [s for s in real if abs(s - middle) <= half_width]
            scores = [
                score(name, query[b, t], value[b, s], weights, s, coverage[s] if use_coverage else None) for s in real
            ]
            row = np.zeros(positions)
            if alignment in NORMALISERS:
                if real:
                    row[real] = NORMALISERS[alignment](np.array(scores))
            else:
                energies = np.array(scores) + weights["score_bias"]
                p = np.zeros(positions)
                if alignment == "monotonic":
                    p[real] = sigmoid(energies)
                    row = before = monotonic(p, before)
                else:
                    p[real] = energies > 0
                    row = hard_monotonic(p, before)
                    before = row if row.any() else before
            if centre is not None:
                for s in real:
                    row[s] *= math.exp(-((s - centre) ** 2) / (2 * (half_width / 2) ** 2))
            coverage = coverage + row
            found[b, t] = row
            done[b] += 1
        walked[b] = before
    state = {}
    if use_coverage:
        state["coverage"] = found.sum(axis=1)
    if alignment not in NORMALISERS:
        state["alignment"] = walked
    if window == "local_m":
        state["step"] = done
    return np.einsum("bts,bsd->btd", found, value), found, state


def attention(name, query, value, mask, weights):
    """Softmax over the whole source: contexts `(B, T, Dv)` and weights `(B, T, S)`."""
    return attend(name, query, value, weights, mask)[:2]


def multi_head(heads, name, query, value, weights, mask, **arguments):
    """Each head by itself: contexts `(B, T, Dv)`, weights `(B, H, T, S)`, states with an axis for heads after B."""
    parts, found, states = [], [], []
    size = weights["query_kernel"].shape[1] // heads
    for h in range(heads):
        columns = slice(h * size, (h + 1) * size)
        queries, keys = query @ weights["query_kernel"][:, columns], value @ weights["key_kernel"][:, columns]
        _, alignment, state = attend(name, queries, keys, weights["head"], mask, **arguments)
        parts.append(alignment @ (value @ weights["value_kernel"][h]))
        found.append(alignment)
        states.append(state)
    context = np.concatenate(parts, axis=-1) @ weights["output_kernel"]
    return context, np.stack(found, axis=1), {key: np.stack([s[key] for s in states], axis=1) for key in states[0]}


def lstm(inputs, kernel, recurrent_kernel, bias, h, c):
    """One row, `(S, D)`; gates in the order i, f, g, o. Returns all h, and the final c."""
    outputs = []
    for x in inputs:
        i, f, g, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.array(outputs), c


def length_penalty(length, alpha):
    return ((5 + length) / 6) ** alpha
