"""Exhaustive search over tables of log-probabilities, with every rule a search knows; independent of the library."""

import dataclasses

import numpy as np

from tests.reference import length_penalty


@dataclasses.dataclass
class Rules:
    """What a hypothesis may not hold, or must; the defaults ask for nothing."""

    min_length: int = 0
    allowed: frozenset = frozenset(range(100))
    prefix: tuple = ()
    phrases: tuple = ()
    no_repeat_ngram: int = 0
    repetition_penalty: float = 1.0

    def may_follow(self, history, word, eos):
        if len(history) < len(self.prefix):
            return word == self.prefix[len(history)]
        if word not in self.allowed or (word == eos and len(history) + 1 < self.min_length):
            return False
        grams = [(*history, word)[i : i + self.no_repeat_ngram] for i in range(len(history) + 1)]
        grams = [gram for gram in grams if self.no_repeat_ngram and len(gram) == self.no_repeat_ngram]
        return not grams or grams[-1] not in grams[:-1]

    def value(self, history, word, log_prob, eos):
        repeated = word in history and word != eos and len(history) >= len(self.prefix)
        return log_prob * self.repetition_penalty if repeated else log_prob

    def satisfied(self, ids):
        return all(
            any(ids[i : i + len(phrase)] == phrase for i in range(len(ids) - len(phrase) + 1))
            for phrase in self.phrases
        )


def exhaustive_search(
    log_probs, max_length, alpha, eos, words, attention=None, beta=0.0, positions=None, rules=None, kind="gnmt"
):
    """All hypotheses over a table `log_probs[previous, step, word]`, best first: (score, ids, log-probability).

    `attention[previous, step, s]`, of which the first `positions` count, and `beta` give the coverage penalty.
    """
    rules, found = rules or Rules(), []

    def covered(ids):
        rows = [attention[previous, t] for t, previous in enumerate((1, *ids[:-1]))]
        return float(np.sum(np.log(np.clip(np.sum(rows, axis=0)[:positions], 1e-6, 1.0))))

    def extend(ids, total, log_prob):
        if ids and (ids[-1] == eos or len(ids) == max_length):
            if rules.satisfied(ids):
                divisor = length_penalty(len(ids), alpha) if kind == "gnmt" else len(ids) ** alpha
                penalty = beta * covered(ids) if beta else 0.0
                found.append((total / divisor + penalty, ids, log_prob))
            return
        previous = ids[-1] if ids else 1
        for word in words:
            if rules.may_follow(ids, word, eos):
                value = log_probs[previous, len(ids), word]
                extend((*ids, word), total + rules.value(ids, word, value, eos), log_prob + value)

    extend((), 0.0, 0.0)
    return sorted(found, key=lambda entry: -entry[0])
