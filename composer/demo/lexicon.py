"""Words of the demo corpus, English beside German, and how the German ones are inflected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Case = Literal["nom", "acc", "dat"]
Person = Literal["I", "you", "he", "we"]
"""Agreement: first and second person singular, third singular (``he``), and the plural (``we``)."""

_ENDINGS = {  # of der-words such as "dieser": masculine, feminine, neuter, plural
    "nom": {"m": "er", "f": "e", "n": "es", "p": "e"},
    "acc": {"m": "en", "f": "e", "n": "es", "p": "e"},
    "dat": {"m": "em", "f": "er", "n": "em", "p": "en"},
}
_THE = {
    "nom": {"m": "der", "f": "die", "n": "das", "p": "die"},
    "acc": {"m": "den", "f": "die", "n": "das", "p": "die"},
    "dat": {"m": "dem", "f": "der", "n": "dem", "p": "den"},
}

DER_WORDS = {"the": "d", "this": "dies", "these": "dies", "every": "jed"}
EIN_WORDS = {"a": "ein", "no": "kein", "my": "mein", "your": "dein", "his": "sein", "our": "unser"}
STRONG = {"two": "zwei", "three": "drei", "four": "vier", "seven": "sieben", "many": "viele"}
POSSESSIVES = ("my", "your", "his", "our")


def determiner(english: str, gender: str, case: Case) -> str:
    """German determiner in agreement; ``gender`` is m, f, n, or p for the plural.

    >>> determiner("the", "m", "acc"), determiner("a", "n", "nom"), determiner("our", "f", "dat")
    ('den', 'ein', 'unserer')
    """
    if english == "the":
        return _THE[case][gender]
    if english in STRONG:
        return STRONG[english] + ("n" if english == "many" and case == "dat" else "")
    if english in DER_WORDS:
        return DER_WORDS[english] + _ENDINGS[case][gender]
    bare = (gender, case) in {("m", "nom"), ("n", "nom"), ("n", "acc")}
    return EIN_WORDS[english] + ("" if bare else _ENDINGS[case][gender])


def adjective_ending(english: str, gender: str, case: Case) -> str:
    """Ending of a German adjective after the determiner that translates ``english``.

    >>> [adjective_ending(word, "m", "nom") for word in ("the", "a")]
    ['e', 'er']
    """
    if english in STRONG:
        return "en" if case == "dat" else "e"
    if gender == "p" or case == "dat" or (gender == "m" and case == "acc"):
        return "en"
    return _ENDINGS[case][gender] if english in EIN_WORDS else "e"


@dataclass(frozen=True)
class Noun:
    """A noun; ``weak`` masculines ("der Junge, den Jungen") take their plural form outside the nominative."""

    singular: str
    plural: str
    de_singular: str
    de_plural: str
    gender: str
    kind: str
    weak: bool

    def german(self, case: Case, *, plural: bool) -> str:
        """The inflected noun."""
        if not plural:
            return self.de_plural if self.weak and case != "nom" else self.de_singular
        return self.de_plural + ("n" if case == "dat" and self.de_plural[-1] not in "ns" else "")


@dataclass(frozen=True)
class Verb:
    """A verb with its principal parts in both languages; ``case`` is that of its only object."""

    case: Case
    base: str
    third: str
    past: str
    prefix: str
    infinitive: str
    first: str
    second: str
    he: str
    participle: str
    auxiliary: str
    subject: str
    object: str

    def finite(self, person: Person) -> str:
        """German present tense without the separable prefix."""
        return {"I": self.first, "you": self.second, "he": self.he, "we": self.infinitive}[person]


def _nouns(table: str) -> dict[str, Noun]:
    nouns = {}
    for line in table.strip().splitlines():
        singular, plural, de_singular, de_plural, gender, kind = line.split()
        nouns[singular] = Noun(singular, plural, de_singular, de_plural, gender[0], kind, gender == "mw")
    return nouns


def _verbs(table: str) -> dict[str, Verb]:
    verbs = {}
    for line in table.strip().splitlines():
        base, third, past, infinitive, *parts, case = line.replace("_", " ").split("  ")
        prefix, _, stem = infinitive.rpartition("|")
        verbs[base] = Verb("dat" if case == "dat" else "acc", base, third, past, prefix, stem, *parts)
    return verbs


NOUNS = _nouns("""
man men Mann Männer m person
woman women Frau Frauen f person
child children Kind Kinder n person
boy boys Junge Jungen mw person
girl girls Mädchen Mädchen n person
teacher teachers Lehrer Lehrer m person
neighbour neighbours Nachbar Nachbarn mw person
baker bakers Bäcker Bäcker m person
student students Student Studenten mw person
sister sisters Schwester Schwestern f person
brother brothers Bruder Brüder m person
aunt aunts Tante Tanten f person
friend friends Freund Freunde m person
queen queens Königin Königinnen f person
dog dogs Hund Hunde m animal
cat cats Katze Katzen f animal
horse horses Pferd Pferde n animal
bird birds Vogel Vögel m animal
hare hares Hase Hasen mw animal
cow cows Kuh Kühe f animal
pig pigs Schwein Schweine n animal
duck ducks Ente Enten f animal
chair chairs Stuhl Stühle m thing
lamp lamps Lampe Lampen f thing
book books Buch Bücher n thing
apple apples Apfel Äpfel m thing
flower flowers Blume Blumen f thing
letter letters Brief Briefe m thing
picture pictures Bild Bilder n thing
bicycle bicycles Fahrrad Fahrräder n thing
cup cups Tasse Tassen f thing
key keys Schlüssel Schlüssel m thing
bag bags Tasche Taschen f thing
ball balls Ball Bälle m thing
coat coats Mantel Mäntel m thing
shirt shirts Hemd Hemden n thing
newspaper newspapers Zeitung Zeitungen f thing
garden gardens Garten Gärten m place
school schools Schule Schulen f place
forest forests Wald Wälder m place
kitchen kitchens Küche Küchen f place
village villages Dorf Dörfer n place
house houses Haus Häuser n place
station stations Bahnhof Bahnhöfe m place
church churches Kirche Kirchen f place
""")

ADJECTIVES = {
    "old": "alt", "young": "jung", "small": "klein", "big": "groß", "new": "neu", "beautiful": "schön",
    "red": "rot", "black": "schwarz", "tired": "müd", "friendly": "freundlich", "strange": "seltsam",
    "expensive": "teur", "heavy": "schwer", "dark": "dunkl", "quiet": "still", "poor": "arm",
}  # fmt: skip
"""English adjective -> German stem, to which an ending is added."""

SUITS = {
    "person": ("old", "young", "small", "big", "tired", "friendly", "strange", "poor"),
    "animal": ("old", "young", "small", "big", "black", "tired", "friendly", "beautiful"),
    "thing": ("old", "small", "big", "new", "red", "black", "beautiful", "expensive", "heavy"),
    "place": ("old", "small", "big", "new", "dark", "quiet", "beautiful"),
}
"""Kind of noun -> adjectives that make sense with it."""

VERBS = _verbs("""
see  sees  saw  sehen  sehe  siehst  sieht  gesehen  haben  living  any  acc
find  finds  found  finden  finde  findest  findet  gefunden  haben  living  any  acc
look_for  looks_for  looked_for  suchen  suche  suchst  sucht  gesucht  haben  living  any  acc
love  loves  loved  lieben  liebe  liebst  liebt  geliebt  haben  living  living  acc
look_at  looks_at  looked_at  an|sehen  sehe  siehst  sieht  angesehen  haben  living  any  acc
forget  forgets  forgot  vergessen  vergesse  vergisst  vergisst  vergessen  haben  person  any  acc
buy  buys  bought  kaufen  kaufe  kaufst  kauft  gekauft  haben  person  thing  acc
sell  sells  sold  verkaufen  verkaufe  verkaufst  verkauft  verkauft  haben  person  thing  acc
carry  carries  carried  tragen  trage  trägst  trägt  getragen  haben  person  thing  acc
paint  paints  painted  malen  male  malst  malt  gemalt  haben  person  any  acc
fetch  fetches  fetched  ab|holen  hole  holst  holt  abgeholt  haben  person  any  acc
call  calls  called  an|rufen  rufe  rufst  ruft  angerufen  haben  person  person  acc
invite  invites  invited  ein|laden  lade  lädst  lädt  eingeladen  haben  person  person  acc
help  helps  helped  helfen  helfe  hilfst  hilft  geholfen  haben  person  living  dat
thank  thanks  thanked  danken  danke  dankst  dankt  gedankt  haben  person  person  dat
follow  follows  followed  folgen  folge  folgst  folgt  gefolgt  sein  living  living  dat
listen_to  listens_to  listened_to  zu|hören  höre  hörst  hört  zugehört  haben  living  living  dat
give  gives  gave  geben  gebe  gibst  gibt  gegeben  haben  person  gift  acc
show  shows  showed  zeigen  zeige  zeigst  zeigt  gezeigt  haben  person  gift  acc
bring  brings  brought  bringen  bringe  bringst  bringt  gebracht  haben  person  gift  acc
offer  offers  offered  an|bieten  biete  bietest  bietet  angeboten  haben  person  gift  acc
sleep  sleeps  slept  schlafen  schlafe  schläfst  schläft  geschlafen  haben  living  none  acc
work  works  worked  arbeiten  arbeite  arbeitest  arbeitet  gearbeitet  haben  person  none  acc
play  plays  played  spielen  spiele  spielst  spielt  gespielt  haben  living  none  acc
wait  waits  waited  warten  warte  wartest  wartet  gewartet  haben  living  none  acc
sing  sings  sang  singen  singe  singst  singt  gesungen  haben  person  none  acc
dance  dances  danced  tanzen  tanze  tanzt  tanzt  getanzt  haben  person  none  acc
stay  stays  stayed  bleiben  bleibe  bleibst  bleibt  geblieben  sein  living  none  acc
arrive  arrives  arrived  an|kommen  komme  kommst  kommt  angekommen  sein  living  none  acc
get_up  gets_up  got_up  auf|stehen  stehe  stehst  steht  aufgestanden  sein  living  none  acc
know  knows  knew  wissen  weiß  weißt  weiß  gewusst  haben  person  that  acc
believe  believes  believed  glauben  glaube  glaubst  glaubt  geglaubt  haben  person  that  acc
say  says  said  sagen  sage  sagst  sagt  gesagt  haben  person  that  acc
hope  hopes  hoped  hoffen  hoffe  hoffst  hofft  gehofft  haben  person  that  acc
""")

HELPERS: dict[str, tuple[str, str, str, str]] = {
    "haben": ("habe", "hast", "hat", "haben"),
    "sein": ("bin", "bist", "ist", "sind"),
    "will": ("werde", "wirst", "wird", "werden"),
    "can": ("kann", "kannst", "kann", "können"),
    "must": ("muss", "musst", "muss", "müssen"),
    "should": ("soll", "sollst", "soll", "sollen"),
    "want to": ("will", "willst", "will", "wollen"),
}
"""Finite forms of the verbs that send the main verb to the end, in the order of :data:`Person`."""

PRONOUNS: dict[str, tuple[Person, str, str, str, str]] = {
    "I": ("I", "me", "ich", "mich", "mir"),
    "you": ("you", "you", "du", "dich", "dir"),
    "he": ("he", "him", "er", "ihn", "ihm"),
    "she": ("he", "her", "sie", "sie", "ihr"),
    "we": ("we", "us", "wir", "uns", "uns"),
    "they": ("we", "them", "sie", "sie", "ihnen"),
}
"""Subject form -> agreement, English object form, German nominative, accusative, dative."""

TIMES = {
    "today": "heute", "now": "jetzt", "every day": "jeden Tag", "yesterday": "gestern", "soon": "bald",
    "last week": "letzte Woche", "tomorrow": "morgen", "on Monday": "am Montag", "in the evening": "am Abend",
}  # fmt: skip
TIMES_OF = {
    "present": ("today", "now", "every day", "on Monday", "in the evening"),
    "past": ("yesterday", "last week", "on Monday", "in the evening"),
    "future": ("tomorrow", "soon", "on Monday", "in the evening"),
}
"""Tense -> adverbials that go with it."""

PREPOSITIONS = {"in": "in", "behind": "hinter", "next to": "neben", "in front of": "vor", "with": "mit"}
"""All with the dative, since only places and company are spoken of."""
