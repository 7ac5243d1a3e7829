"""Sentences made from templates, in pairs that say the same in other words.

"a small dog chases the big cat" and "the large cat is pursued by a little dog" are such a pair. Who
does what to whom is in the order of the words: the same words in another order say something else.
"""

import numpy as np

# The same meaning in each row.
ADJECTIVES = (("small", "little"), ("large", "big"), ("fast", "quick"), ("brave", "bold"))
NOUNS = (("dog", "hound"), ("cat", "kitten"), ("child", "kid"), ("rabbit", "bunny"), ("bird", "robin"))
VERBS = (("chases", "pursued"), ("sees", "noticed"), ("helps", "assisted"), ("finds", "discovered"))
FUNCTION_WORDS = ("a", "the", "is", "by")

LENGTH = 12  # Sentences are padded to so many words.
PADDING = 0
WORDS = ("<padding>", *FUNCTION_WORDS, *(word for row in ADJECTIVES + NOUNS + VERBS for word in row))
NUMBERS = {word: number for number, word in enumerate(WORDS)}


def encode(sentence):
    numbers = [NUMBERS[word] for word in sentence.split()]
    return numbers + [PADDING] * (LENGTH - len(numbers))


def someone(random, meaning):
    """Words for a noun that may have an adjective."""
    adjective, noun = meaning
    words = [random.choice(("a", "the"))]
    if adjective < len(ADJECTIVES):
        words.append(random.choice(ADJECTIVES[adjective]))
    words.append(random.choice(NOUNS[noun]))
    return " ".join(words)


def active(random, meaning):
    subject, verb, target = meaning
    return f"{someone(random, subject)} {VERBS[verb][0]} {someone(random, target)}"


def passive(random, meaning):
    subject, verb, target = meaning
    return f"{someone(random, target)} is {VERBS[verb][1]} by {someone(random, subject)}"


def draw_meanings(random, count, held_out):
    """`count` different meanings (who, does what, to whom), each followed by the one that has the
    roles exchanged. What is drawn as held out is never drawn otherwise."""
    meanings = []
    while len(meanings) < count:
        subject, target = ((random.randint(len(ADJECTIVES) + 1), random.randint(len(NOUNS))) for _ in range(2))
        meaning = (subject, random.randint(len(VERBS)), target)
        if subject != target and meaning not in meanings and (sum(subject + target) % 4 == 0) == held_out:
            meanings += [meaning, meaning[::-1]]
    return meanings


def draw_pairs(random, count, held_out=False):
    """Two arrays of word numbers, INT64 [count, LENGTH]: row i of both means the same."""
    meanings = draw_meanings(random, count, held_out)
    return tuple(np.array([encode(say(random, meaning)) for meaning in meanings], np.int64)
                 for say in (active, passive))
