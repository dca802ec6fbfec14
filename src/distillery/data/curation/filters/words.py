"""What counts as a word of a caption, in whatever script.

In: a caption. Out: its words, or their number. Scripts that put no blanks between words (Chinese,
Japanese, Thai, ...) are not cut into words, which needs a dictionary: their letters are counted.
"""

import re
import unicodedata

# Letters of Han, kana and of the South-East Asian scripts without blanks, and how many of them
# make a word on average: two in Chinese, about four letters without marks in Thai and its kin.
_HAN_AND_KANA = re.compile(r"[\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
                           r"\uff66-\uff9f\U00020000-\U0003ffff]")  # fmt: skip
_SOUTH_EAST_ASIAN = re.compile(r"[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff]")
_LETTERS_PER_WORD = ((_HAN_AND_KANA, 2), (_SOUTH_EAST_ASIAN, 4))


def list_words(text: str) -> list[str]:
    """Runs of letters and digits; marks on letters and invisible joiners do not part a word."""
    joined = (c for c in text if unicodedata.category(c) not in ("Mn", "Mc", "Me", "Cf"))
    return re.findall(r"\w+", "".join(joined))


def count_words(text: str) -> int:
    """Number of words; of scripts without blanks, one per two (Thai and its kin: four) letters."""
    return sum(_words_in(run) for run in list_words(text))


def _words_in(run: str) -> int:
    for letters, per_word in _LETTERS_PER_WORD:
        if num_letters := len(letters.findall(run)):
            return max(1, num_letters // per_word)
    return 1
