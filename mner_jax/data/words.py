"""Raw text to words, split as in the data sets of this field.

Their examples define a word: clitics (`l'`, `'s`) and the marks of mentions and
hashtags are words of their own; abbreviations (`U.S.`), numbers (`10,000`) and
hyphenated words stay whole; every other sign is a word. Each Chinese or
Japanese character is a word, as in Chinese data sets; Thai, Lao and Khmer are
not split between spaces.
"""

from tokenizers import Regex, pre_tokenizers

from mner_jax.config import UserError

_INVISIBLE = r"\s\p{Cc}\p{Cf}\p{Co}\x{FE00}-\x{FE0F}"
# Soft hyphens and joiners belong to the word around them.
_START, _INNER = r"[\p{L}\p{N}_]", r"[\p{L}\p{M}\p{N}_\x{AD}\x{200C}\x{200D}]"
_CLITIC = rf"(?:s|S|re|ve|ll|d|m|t)(?!{_INNER})"
# The first that matches where the last word ended. Oniguruma's syntax.
_WORD = (
  r"(?:https?://|www\.)[^\s]+",
  r"[\p{Han}\p{Hiragana}\p{Katakana}]",
  r"(?:\p{L}\.){2,}",  # U.S.
  r"\p{Lu}\.(?=\s+\p{Lu})",  # J. Smith
  rf"\p{{L}}{_INNER}*['’](?!{_CLITIC})(?=\p{{L}})",  # l'
  rf"['’]{_CLITIC}",  # 's
  rf"\p{{N}}+(?:[.,:]\p{{N}}+)*(?!{_INNER}|-)",  # 10,000
  rf"{_START}{_INNER}*(?:[-‐&]{_START}{_INNER}*)*",
  r"[\x{1F1E6}-\x{1F1FF}]{2}",  # a flag: \X would look back at all before it
  rf"(?=[^{_INVISIBLE}])\X",  # a sign; an emoji with all that joins it
)
_SPLIT = pre_tokenizers.Split(
  Regex("|".join(_WORD)), behavior="removed", invert=True
)


def split(text):
  """Returns [(start, end)] of the words of a text, in characters.

  Ends are exclusive. White space and invisible characters are in no word,
  except inside one. Raises a UserError at text that UTF-8 cannot hold.
  """
  try:
    return [span for _, span in _SPLIT.pre_tokenize_str(text)]
  except UnicodeEncodeError:
    raise UserError(f"{text!r:.40}: not UTF-8") from None
