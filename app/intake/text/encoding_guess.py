"""Guesses the encoding of bytes that are not UTF-8.

charset-normalizer proposes encodings, but it is made for pages of text and is often wrong about the few words
in a file of devices. So its proposal is compared with every other usual encoding by how much the words look
like words: letters of one script, the letters that its languages use, no capitals or signs inside a word. It
stays a guess, so notices say where it was used.
"""

import re
import unicodedata
from functools import lru_cache
from itertools import pairwise
from typing import Final

from charset_normalizer import from_bytes
from charset_normalizer.constant import FREQUENCIES

SAMPLE: Final = 8 * 1024
"""The most bytes of non-ASCII cells that are examined."""

WESTERN: Final = "cp1252"
"""The default if nothing points to another."""

_MULTIBYTE: Final = ("cp932", "gb18030", "cp949", "big5", "euc_jp")
_LANGUAGES: Final[dict[str, tuple[str, ...]]] = {
    # In order of preference if nothing decides.
    "cp1252": ("German", "French", "Spanish", "Portuguese", "Italian", "Dutch", "Swedish", "Danish",
               "Norwegian", "Finnish"),
    "cp1251": ("Russian", "Ukrainian", "Bulgarian", "Serbian"),
    "cp1250": ("Polish", "Czech", "Slovak", "Hungarian", "Slovene", "Croatian", "Romanian", "German"),
    "cp1253": ("Greek",),
    "cp1254": ("Turkish", "German", "French"),
    "cp1255": ("Hebrew",),
    "cp1256": ("Arabic", "Farsi"),
    "cp1257": ("Lithuanian", "Estonian"),
    "cp1258": ("Vietnamese",),
    "cp850": ("German", "French", "Spanish", "Portuguese", "Italian", "Swedish", "Danish", "Norwegian",
              "Finnish"),
    "mac_roman": ("German", "French", "Spanish", "Portuguese", "Italian", "Swedish", "Danish", "Norwegian",
                  "Finnish"),
    "cp852": ("Polish", "Czech", "Slovak", "Hungarian", "Slovene", "Croatian", "Romanian"),
    "cp866": ("Russian", "Bulgarian"),
    "koi8_r": ("Russian",),
    "cp437": ("German", "French", "Spanish", "Italian", "Swedish", "Danish", "Finnish"),
}  # fmt: skip
CANDIDATES: Final = (*_MULTIBYTE, *_LANGUAGES)

_MORE: Final[dict[str, str]] = {
    "German": "ß", "French": "çêâîôûëïüœùÿ", "Spanish": "ñúü", "Portuguese": "õôâêúóàü", "Italian": "ìùé",
    "Swedish": "é", "Danish": "é", "Norwegian": "éèò", "Polish": "ńśźżć", "Czech": "ěšřůúťďňó",
    "Slovak": "ľťďňôšúóäŕĺ", "Hungarian": "öüűőíú", "Slovene": "", "Croatian": "đ", "Romanian": "şţ",
    "Turkish": "öâîûi̇", "Lithuanian": "ūį", "Estonian": "šž", "Russian": "шщюэёф", "Ukrainian": "щєґїюшжф",
    "Bulgarian": "юшф", "Serbian": "љњђћџшчжзћ", "Greek": "ώϊϋΐΰ", "Hebrew": "ךן", "Vietnamese": "",
    "Arabic": "ئءؤظغضذزثآى", "Farsi": "",
}  # fmt: skip
"""Letters that the library's lists of frequent letters lack."""
_SIGNS: Final = frozenset("–—‘’“”„•…€£§°®™©«»·¿¡ªº²³½¼¾±´№×÷、。・（）「」『』【】：；，ー〜～\u3000")
_TYPOGRAPHY: Final = frozenset("–—‘’“”„•…€§°®™©«»ºª")
_WORD: Final = re.compile(r"[^\W\d_]+")
_STUCK: Final = re.compile(
    r"[^\W\d_][¢£¤¥¦§¨¬¯°±¶·¸÷×¡¿ªº²³¹¼½¾•…†‡‰‹›“”„‘‚]|[¢£¤¥¦§¨¬¯±¶·¸÷×ªº²³¹¼½¾†‡‰‹›”][^\W\d_]"
)
_NUMBER: Final = re.compile(r"\b[Nn](?:\.?º|°)")
"""How southern European languages abbreviate "number": a letter with a sign."""
_BREAKS: Final = re.compile(rb"[,;\t|\r\n\"]+")
_LESS_LIKELY: Final[dict[str, float]] = {
    "gb18030": 0.01, "cp949": 0.02, "big5": 0.03, "euc_jp": 0.1, "cp1257": 0.04, "cp1258": 0.1, "cp866": 0.06,
    "koi8_r": 0.06, "cp850": 0.1, "mac_roman": 0.1, "cp852": 0.12, "cp437": 0.13, "cp1252": 0.0, "cp932": 0.0,
}  # fmt: skip
"""The penalty for rare encodings; 0.03 for all others."""
_TRADE: Final[dict[str, str]] = {
    "Japanese": "東京大阪名古屋福岡札幌仙台横浜神戸本社支店営業部総務情報株式会社"
                "開発人事経理学校工場課室技術製造",
    "Chinese": "北京上海广州深圳成都天津南京武汉西安杭州重庆总部公司分办室销售财务技术研发"
               "人事中国联想华为学校大厦店厂",
    "Traditional": "台北中高雄新竹總公司分部業務資訊研發財會人事辦室學校門市宏碁華碩香港廠技術臺灣",
    "Korean": "서울부산대구인천광주전남북경기강원제주본사지점영업팀관리개발총무재회계연소공장물류센터"
              "학교식한국삼성엘현",
}  # fmt: skip
"""Characters in names of places, departments and makers, the usual non-ASCII values in such files."""


def guess(data: bytes) -> str:
    """The most likely codec for these bytes, which are not UTF-8."""
    return _likeliest(_sample(data))


@lru_cache(maxsize=8)  # cached, because each reader asks for the encoding
def _likeliest(sample: bytes) -> str:
    western = sample.decode(WESTERN, "replace")
    if not _STUCK.search(western) and all(c.isascii() or c in _TYPOGRAPHY for c in western):
        return WESTERN
    proposed = [match.encoding for match in from_bytes(sample, cp_isolation=list(CANDIDATES))]
    order = {codec: at for at, codec in enumerate(CANDIDATES)}
    costs = []
    for codec in CANDIDATES:
        try:
            text = sample.decode(codec)
        except UnicodeDecodeError:
            continue
        cost = _multibyte_cost(text, codec) if codec in _MULTIBYTE else _cost(text, codec)
        # The library's proposal counts if the words do not decide.
        cost += _LESS_LIKELY.get(codec, 0.03)
        costs.append((cost, codec not in proposed[:3], order[codec], codec))
    return min(costs)[3] if costs else WESTERN


def _sample(data: bytes) -> bytes:
    """The different cells with non-ASCII characters."""
    cells = dict.fromkeys(cell.strip() for cell in _BREAKS.split(data) if not cell.isascii())
    sample = b""
    for cell in cells:
        if sample and len(sample) + len(cell) >= SAMPLE:
            break
        sample += cell[:SAMPLE] + b"\n"
    return sample


@lru_cache(maxsize=len(_LANGUAGES))
def _alphabets(codec: str) -> tuple[dict[str, float], ...]:
    """The letters of each language with their cost: next to nothing, a little more for rare ones."""
    found = []
    for language in _LANGUAGES[codec]:
        letters = dict.fromkeys((*FREQUENCIES[language], *_MORE.get(language, "")))
        found.append({letter: rank / 300 for rank, letter in enumerate(letters)})
    return tuple(found)


def _cost(text: str, codec: str) -> float:
    """How little the text looks like words, per non-ASCII character."""
    foreign = [character for character in text if not character.isascii()]
    cost = sum(_cost_of_sign(character) for character in foreign if not character.isalpha())
    cost += sum(_cost_of_word(word) for word in _WORD.findall(text))
    letters = [character.lower()[0] for character in foreign if character.isalpha()]
    # Letters of one language are more likely than those of several.
    cost += min(sum(alphabet.get(letter, 1.0) for letter in letters) for alphabet in _alphabets(codec))
    # A sign next to a letter is probably a letter of another encoding.
    cost += 2.0 * len(_STUCK.findall(_NUMBER.sub(" ", text)))
    return cost / max(1, len(foreign))


def _cost_of_sign(character: str) -> float:
    if unicodedata.combining(character):
        return 0.0 if character < "\u0370" else 1.5
    return 0.3 if character in _SIGNS else 3.0


def _cost_of_word(word: str) -> float:
    foreign = sum(not character.isascii() for character in word)
    if not foreign:
        return 0.0
    is_latin = all(character < "\u0250" or "\u1e00" <= character <= "\u1eff" for character in word)
    cost = 0.0
    if is_latin:
        # In words of Latin letters those with accents are few.
        cost += 1.5 * max(0, foreign - max(1, len(word) // 2))
        cost += 1.0 * (len(word) > 1 and foreign == len(word))
    elif foreign != len(word) or len(word) == 1:
        cost += 2.0
    capitals = sum(a.islower() and b.isupper() for a, b in pairwise(word))
    return cost + 1.5 * capitals


def _multibyte_cost(text: str, codec: str) -> float:
    foreign = [character for character in text if not character.isascii()]
    cost = 0.0
    for character in foreign:
        cost += _cost_of_character(character, codec)
    cost += sum(
        # An accented letter and the letter after it look like one such character.
        1.5
        for _ in re.findall(
            r"(?<![A-Za-z])[A-Za-z]{1,2}[^\x00-\x7f][a-z]|[a-z]{2}[^\x00-\x7f](?![^\x00-\x7f])", text
        )
    )
    return cost / max(1, len(foreign))


def _cost_of_character(character: str, codec: str) -> float:
    if character in _SIGNS:
        return 0.05
    if "\uff61" <= character <= "\uff9f":
        return 0.9  # half-width kana are single bytes, so any text may have them by accident
    if "\u3040" <= character <= "\u30ff":
        return 0.0 if codec in ("cp932", "euc_jp") else 0.8
    written = character.encode(codec)
    if len(written) != 2:
        return 3.0
    lead, trail = written
    match codec:
        case "cp932":
            usual = 0x88 <= lead <= 0x97
        case "gb18030":
            usual = 0xB0 <= lead <= 0xD7 and trail >= 0xA1
        case "cp949":
            usual = 0xB0 <= lead <= 0xC8 and trail >= 0xA1
        case "big5":
            usual = 0xA4 <= lead <= 0xC6
        case _:
            usual = 0xB0 <= lead <= 0xCF
    return 0.0 if usual and character in _frequent(codec) else 0.25 if usual else 0.7


@lru_cache(maxsize=len(_MULTIBYTE))
def _frequent(codec: str) -> frozenset[str]:
    languages = {
        "cp932": "Japanese", "euc_jp": "Japanese", "cp949": "Korean", "gb18030": "Chinese",
        "big5": "Traditional",
    }  # fmt: skip
    language = languages[codec]
    return frozenset((*FREQUENCIES.get(language, ()), *_TRADE[language]))
