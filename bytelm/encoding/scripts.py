"""The Unicode script of characters, as the ``regex`` package knows it."""

import functools
from typing import Final

import regex

_NAMES: Final = """
Adlam Ahom Anatolianhieroglyphs Arabic Armenian Avestan Balinese Bamum Bassavah Batak Bengali Beriaerfe
Bhaiksuki Bopomofo Brahmi Braille Buginese Buhid Canadianaboriginal Carian Caucasianalbanian Chakma Cham
Cherokee Chorasmian Common Coptic Cuneiform Cypriot Cyprominoan Cyrillic Deseret Devanagari Divesakuru Dogra
Duployan Egyptianhieroglyphs Elbasan Elymaic Ethiopic Garay Georgian Glagolitic Gothic Grantha Greek Gujarati
Gunjalagondi Gurmukhi Gurungkhema Hangul Han Hanifirohingya Hanunoo Hatran Hebrew Hiragana Imperialaramaic
Inherited Inscriptionalpahlavi Inscriptionalparthian Javanese Jurchen Kaithi Kannada Katakana Katakanaorhiragana
Kawi Kayahli Kharoshthi Khitansmallscript Khmer Khojki Khudawadi Kiratrai Lao Latin Lepcha Limbu Lineara
Linearb Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic Manichaean Marchen Masaramgondi Medefaidrin
Meeteimayek Mendekikakui Meroiticcursive Meroitichieroglyphs Miao Modi Mongolian Mroo Multani Myanmar Nabataean
Nagmundari Nandinagari Newa Newtailue Nko Nushu Nyiakengpuachuehmong Ogham Olchiki Oldhungarian Olditalic
Oldnortharabian Oldpermic Oldpersian Oldsogdian Oldsoutharabian Oldturkic Olduyghur Olonal Oriya Osage Osmanya
Pahawhhmong Palmyrene Paucinhau Phagspa Phoenician Protocuneiform Psalterpahlavi Rejang Runic Samaritan
Saurashtra Seal Sharada Shavian Siddham Sidetic Signwriting Sinhala Sogdian Sorasompeng Soyombo Sundanese
Sunuwar Sylotinagri Syriac Tagalog Tagbanwa Taile Taitham Taiviet Taiyo Takri Tamil Tangsa Tangut Telugu Thaana
Thai Tibetan Tifinagh Tirhuta Todhri Tolongsiki Toto Tulutigalari Ugaritic Vai Vithkuqi Wancho Warangciti
Yezidi Yi Zanabazarsquare
"""

SCRIPTS: Final = tuple(_NAMES.split())
"""Names of scripts. A character of a later Unicode version, whose script is not named here, has the script ''."""


def scripts_of(characters: str) -> list[str]:
    """The script of each character, a name of ``SCRIPTS`` or an empty string."""
    found = dict.fromkeys(characters, "")
    for name, pattern in _patterns():
        found.update(dict.fromkeys(pattern.findall(characters), name))
    return [found[character] for character in characters]


@functools.cache
def _patterns() -> list[tuple[str, "regex.Pattern[str]"]]:
    patterns = []
    for name in SCRIPTS:
        try:
            patterns.append((name, regex.compile(rf"\p{{Script={name}}}")))
        except regex.error:  # an older version of the package lacks the newest scripts
            continue
    return patterns
