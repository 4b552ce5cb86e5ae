"""Exhaustive search over tables of log-probabilities, with every rule a search knows; independent of the library."""

import dataclasses
import itertools

import numpy as np

from tests.support.reference import length_penalty


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


def beam_reference(
    answers, beam_size, most, alpha, first, eos, words, groups=1, diversity=0.0, beta=0.0, positions=None, rules=None
):
    """Beam search by its definition, word by word, with groups, a coverage penalty, `Rules`, and phrases by banks.

    Args:
        answers: `answers(read) -> log_probs, weights` after all words read, the first one among them.
        most: most words.
        first: what is read before the first word.
        positions: how many source positions have to be covered.

    Returns:
        The hypotheses, best first: (score, ids, log-probability); and the margin.
    """
    rules, size, margin = rules or Rules(), beam_size // groups, np.inf
    needed = sum(len(phrase) for phrase in rules.phrases)
    beams = [[(0.0, (), 0.0, 0.0)] for _ in range(groups)]  # score, ids, log-probability, and that as rules change it

    def uncovered(ids):
        rows = [answers((first, *ids[:t]))[1] for t in range(len(ids))]
        return beta * float(np.sum(np.log(np.clip(np.sum(rows, axis=0)[:positions], 1e-6, 1.0))))

    def in_place(ids):
        """Number of phrase tokens present: those of whole phrases, and of one begun at the end of `ids`."""
        count = 0
        for phrase in rules.phrases:
            n = len(phrase)
            whole = any(ids[i : i + n] == phrase for i in range(len(ids) - n + 1))
            count += n if whole else max(j for j in range(n) if j == 0 or ids[-j:] == phrase[:j])
        return count

    for t in range(most):
        chosen, divisor = [], length_penalty(t + 1, alpha)
        for number, beam in enumerate(beams):
            if all(ids[-1:] == (eos,) for _, ids, *_ in beam):
                continue
            candidates = []
            for score, ids, log_prob, total in beam:
                if ids[-1:] == (eos,):
                    candidates.append((score, (score, ids, log_prob, total)))
                    continue
                row, _ = answers((first, *ids))
                for word in words:
                    longer, value = (*ids, word), total + rules.value(ids, word, row[word], eos)
                    room = 0 if word == eos else most - len(longer)
                    if needed - in_place(longer) > room or not rules.may_follow(ids, word, eos):
                        continue
                    penalty = uncovered(longer) if beta else 0.0
                    rank = (value - diversity * chosen.count(word)) / divisor + penalty
                    candidates.append((rank, (value / divisor + penalty, longer, log_prob + row[word], value)))
            candidates.sort(key=lambda entry: -entry[0])
            banks = {}
            for place, (_, hypothesis) in enumerate(candidates):
                banks.setdefault(in_place(hypothesis[1]), []).append(place)
            turns = [(turn, -bank, place) for bank, places in banks.items() for turn, place in enumerate(places)]
            kept = {place for _, _, place in sorted(turns)[:size]}
            for places in banks.values():
                inside, outside = [p for p in places if p in kept], [p for p in places if p not in kept]
                if inside and outside:
                    margin = min(margin, candidates[inside[-1]][0] - candidates[outside[0]][0])
            beams[number] = [candidates[place][1] for place in sorted(kept)]
            chosen += [ids[-1] for _, ids, *_ in beams[number] if len(ids) == t + 1]
    found = sorted((entry[:3] for beam in beams for entry in beam), key=lambda entry: -entry[0])
    return found, min([margin, *(one[0] - other[0] for one, other in itertools.pairwise(found))])
