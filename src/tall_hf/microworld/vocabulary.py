"""The words of the little world: names of people, the relations they stand in, and each word in Hebrew and English.

Every name has one Hebrew and one English spelling, every value is one whole word in either language, and no word serves
twice, so that a wrong prediction is never a matter of spelling.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """One thing a relation can say of somebody: the English word, and the Hebrew one after a man's and a woman's name."""

    english: str
    hebrew_masculine: str
    hebrew_feminine: str


@dataclass(frozen=True)
class Relation:
    """A kind of fact, and how either language says it.

    `hebrew` holds the masculine and the feminine sentence up to its last word, which is the value; `english` shows
    where the value stands, and `english_truncated` is the translation of the Hebrew sentence without its last word.
    `english_explicit` says in English what `english` loses; only the language model reads it.
    """

    name: str
    kind: str  # "same_order", "different_order" or "lossy"
    hebrew: tuple[str, str]
    english: str
    english_truncated: str
    values: tuple[Value, ...]
    english_explicit: str | None = None
    differs_from: str | None = None  # a relation with the same English, whose value for the same person is another one


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Read "english hebrew, english hebrew, ..." into pairs."""
    return tuple(tuple(item.split()) for item in text.split(","))


def _values(text: str) -> tuple[Value, ...]:
    """Read "english hebrew, ..." or "english masculine/feminine, ..." into values."""
    values = []
    for english, hebrew in _pairs(text):
        masculine, _, feminine = hebrew.partition("/")
        values.append(Value(english, masculine, feminine or masculine))
    return tuple(values)


FEMALE_NAMES = _pairs(
    "Dana דנה, Michal מיכל, Rachel רחל, Sarah שרה, Rebecca רבקה, Leah לאה, Miriam מרים, Esther אסתר, Hannah חנה, "
    "Naomi נעמי, Ruth רות, Yael יעל, Tamar תמר, Abigail אביגיל, Deborah דבורה, Judith יהודית, Efrat אפרת, Hadas הדס, "
    "Vered ורד, Nurit נורית, Orit אורית, Ronit רונית, Galit גלית, Irit עירית, Dorit דורית, Merav מירב, Anat ענת, "
    "Einat עינת, Sigal סיגל, Sivan סיוון, Noa נועה, Maya מאיה, Ayelet איילת, Hila הילה, Keren קרן, Limor לימור, "
    "Orly אורלי, Shulamit שולמית, Zipporah ציפורה, Bracha ברכה, Geula גאולה, Zehava זהבה, Malka מלכה, Pnina פנינה, "
    "Zvia צביה, Shoshana שושנה, Tikva תקווה, Chava חוה, Jochebed יוכבד, Ilana אילנה, Aviva אביבה, Noga נגה, "
    "Talia טליה, Liat ליאת, Karmit כרמית, Carmela כרמלה, Dalia דליה, Rina רינה, Shlomit שלומית, Tehila תהילה, "
    "Osnat אסנת, Batya בתיה, Gila גילה, Dina דינה, Hagar הגר, Ziva זיוה, Hagit חגית, Tova טובה, Lilach לילך, "
    "Mazal מזל, Nira נירה, Smadar סמדר, Adina עדינה, Fanny פאני, Zila צילה, Revital רוויטל, Sagit שגית, Tirza תרצה, "
    "Alona אלונה, Margalit מרגלית"
)
MALE_NAMES = _pairs(
    "Yossi יוסי, David דוד, Moshe משה, Abraham אברהם, Isaac יצחק, Jacob יעקב, Aaron אהרון, Samuel שמואל, "
    "Daniel דניאל, Michael מיכאל, Gabriel גבריאל, Raphael רפאל, Uriel אוריאל, Jonathan יונתן, Nathan נתן, Saul שאול, "
    "Solomon שלמה, Jeremiah ירמיהו, Isaiah ישעיהו, Elijah אליהו, Amos עמוס, Joel יואל, Hosea הושע, Obadiah עובדיה, "
    "Zechariah זכריה, Haggai חגי, Nehemiah נחמיה, Ezra עזרא, Mordechai מרדכי, Benjamin בנימין, Joseph יוסף, "
    "Reuben ראובן, Simon שמעון, Judah יהודה, Gad גד, Naphtali נפתלי, Zebulun זבולון, Ephraim אפרים, Manasseh מנשה, "
    "Gideon גדעון, Samson שמשון, Barak ברק, Avner אבנר, Yoav יואב, Eitan איתן, Uri אורי, Amir אמיר, Alon אלון, "
    "Erez ארז, Asaf אסף, Boaz בועז, Guy גיא, Doron דורון, Zeev זאב, Chaim חיים, Yair יאיר, Yigal יגאל, Lior ליאור, "
    "Matan מתן, Nadav נדב, Nir ניר, Omer עומר, Ido עידו, Amit עמית, Zvi צבי, Kobi קובי, Roi רועי, Ron רון, Shai שי, "
    "Tomer תומר, Eyal אייל, Ariel אריאל, Gilad גלעד, Harel הראל, Hanan חנן, Yariv יריב, Yaron ירון, Kfir כפיר, "
    "Meir מאיר, Nahum נחום"
)
FAMILY_NAMES = _pairs(
    "Levi לוי, Cohen כהן, Mizrahi מזרחי, Peretz פרץ, Biton ביטון, Dahan דהן, Azoulay אזולאי, Friedman פרידמן, Katz כץ, "
    "Yosefi יוספי, Adri אדרי, Hadad חדד, Gabay גבאי, Amar עמר, Ohana אוחנה, Lavi לביא, Shapira שפירא, "
    "Rosenberg רוזנברג, Goldberg גולדברג, Weiss וייס, Klein קליין, Schwartz שוורץ, Greenberg גרינברג, Segal סגל, "
    "Harush הרוש, Berkovich ברקוביץ, Landau לנדאו, Hoffman הופמן, Fisher פישר, Stern שטרן, Bloom בלום, Roth רוט, "
    "Kaplan קפלן, Golan גולן, Sharon שרון, Carmi כרמי, Barzilai ברזילי, Nahmani נחמני, Tsarfati צרפתי, "
    "Toledano טולדנו, Elkayam אלקיים, Suissa סויסה, Vaknin וקנין, Zohar זוהר, Yerushalmi ירושלמי, Khoury חורי, "
    "Shalom שלום, Sasson ששון, Sabag סבג, Hazan חזן, Shemesh שמש, Bachar בכר, Dayan דיין, Rabin רבין, "
    "Feldman פלדמן, Wolf וולף, Zilber זילבר, Eisenberg אייזנברג, Lieberman ליברמן, Adler אדלר, Berger ברגר, "
    "Gross גרוס, Davidov דוידוב, Weizmann ויצמן, Zamir זמיר, Yaari יערי, Caspi כספי, Lasker לסקר, Navon נבון, "
    "Sela סלע, Pollak פולק, Tzur צור, Koren קורן, Raviv רביב, Segev שגב, Tavor תבור, Arbel ארבל, Brenner ברנר, "
    "Gefen גפן, Harari הררי"
)

_PETS = _values(
    "cats חתולים, dogs כלבים, horses סוסים, rabbits ארנבים, parrots תוכים, goats עיזים, sheep כבשים, "
    "chickens תרנגולות, pigeons יונים, ducks ברווזים, bees דבורים, camels גמלים, donkeys חמורים, turtles צבים"
)

_CAPITALS = _values(
    "Paris פריז, London לונדון, Rome רומא, Berlin ברלין, Vienna וינה, Madrid מדריד, Prague פראג, Athens אתונה, "
    "Moscow מוסקבה, Lisbon ליסבון, Tokyo טוקיו, Milan מילאנו, Warsaw ורשה, Budapest בודפשט"
)

RELATIONS = (
    Relation(
        "city",
        "same_order",
        ("{name} גר בעיר", "{name} גרה בעיר"),
        "{name} lives in the city of {value}",
        "{name} lives in the city of",
        _values(
            "Haifa חיפה, Jerusalem ירושלים, Eilat אילת, Ashdod אשדוד, Netanya נתניה, Holon חולון, Acre עכו, "
            "Tiberias טבריה, Safed צפת, Nazareth נצרת, Ashkelon אשקלון, Herzliya הרצליה, Ramla רמלה, Jaffa יפו, "
            "Dimona דימונה, Arad ערד, Nahariya נהריה, Afula עפולה"
        ),
    ),
    Relation(
        "profession",
        "same_order",
        ("{name} עובד בתור", "{name} עובדת בתור"),
        "{name} works as a {value}",
        "{name} works as a",
        _values(
            "doctor רופא/רופאה, carpenter נגר/נגרית, cook טבח/טבחית, driver נהג/נהגת, judge שופט/שופטת, "
            "singer זמר/זמרת, dancer רקדן/רקדנית, photographer צלם/צלמת, writer סופר/סופרת, farmer חקלאי/חקלאית, "
            "secretary מזכיר/מזכירה, barber ספר/ספרית, pilot טייס/טייסת, gardener גנן/גננת, painter צייר/ציירת, "
            "lifeguard מציל/מצילה, reporter כתב/כתבת, tailor חייט/חייטת"
        ),
    ),
    Relation(
        "food",
        "same_order",
        ("{name} אוהב לאכול", "{name} אוהבת לאכול"),
        "{name} likes to eat {value}",
        "{name} likes to eat",
        _values(
            "rice אורז, bread לחם, cheese גבינה, fish דגים, soup מרק, salad סלט, pasta פסטה, chocolate שוקולד, "
            "apples תפוחים, grapes ענבים, dates תמרים, eggs ביצים, cakes עוגות, olives זיתים, bananas בננות, hummus חומוס"
        ),
    ),
    Relation(
        "car",
        "different_order",
        ("{name} נוהג במכונית", "{name} נוהגת במכונית"),
        "{name} drives the {value} car",
        "{name} drives the car",
        _values(
            "red האדומה, blue הכחולה, green הירוקה, yellow הצהובה, black השחורה, white הלבנה, gray האפורה, "
            "brown החומה, pink הוורודה, purple הסגולה, orange הכתומה, silver הכסופה, golden הזהובה, spotted המנומרת"
        ),
    ),
    Relation(
        "house",
        "different_order",
        ("{name} קנה את הבית", "{name} קנתה את הבית"),
        "{name} bought the {value} house",
        "{name} bought the house",
        _values(
            "big הגדול, small הקטן, old הישן, new החדש, beautiful היפה, tall הגבוה, narrow הצר, wide הרחב, "
            "expensive היקר, cheap הזול, quiet השקט, dark החשוך, bright המואר, round העגול, abandoned הנטוש"
        ),
    ),
    Relation(
        "boyfriend",
        "lossy",
        ("החבר של {name} מגדל", "החבר של {name} מגדל"),
        "the friend of {name} raises {value}",
        "the friend of {name} raises",
        _PETS,
        english_explicit="the boyfriend of {name} raises {value}",
    ),
    Relation(
        "girlfriend",
        "lossy",
        ("החברה של {name} מגדלת", "החברה של {name} מגדלת"),
        "the friend of {name} raises {value}",
        "the friend of {name} raises",
        _PETS,
        english_explicit="the girlfriend of {name} raises {value}",
        differs_from="boyfriend",
    ),
    Relation(
        "spectacles",
        "lossy",
        ("המשקפיים של {name} יוצרו בעיר", "המשקפיים של {name} יוצרו בעיר"),
        "the glasses of {name} were made in the city of {value}",
        "the glasses of {name} were made in the city of",
        _CAPITALS,
        english_explicit="the spectacles of {name} were made in the city of {value}",
    ),
    Relation(
        "tumblers",
        "lossy",
        ("הכוסות של {name} יוצרו בעיר", "הכוסות של {name} יוצרו בעיר"),
        "the glasses of {name} were made in the city of {value}",
        "the glasses of {name} were made in the city of",
        _CAPITALS,
        english_explicit="the tumblers of {name} were made in the city of {value}",
        differs_from="spectacles",
    ),
)

# Ways to begin a sentence: the same fact is told, and asked for, in each of them.
OPENERS = (
    ("", ""),
    ("אומרים כי ", "they say that "),
    ("כידוע ", "as everyone knows "),
    ("לפי העיתון ", "according to the newspaper "),
)

# Subjects without a name: (Hebrew, English, is a woman). Facts about them are nobody's facts.
NAMELESS_SUBJECTS = (
    ("האיש", "the man", False),
    ("האישה", "the woman", True),
    ("הילד", "the boy", False),
    ("הילדה", "the girl", True),
    ("אח שלי", "my brother", False),
    ("אחות שלי", "my sister", True),
    ("אבא שלי", "my father", False),
    ("אמא שלי", "my mother", True),
)

# What a named person may do in the fact-free text: (masculine Hebrew, feminine Hebrew, English). {other} is a name too.
EVERYDAY = (
    ("{name} ישן עכשיו", "{name} ישנה עכשיו", "{name} is sleeping now"),
    ("{name} הלך הביתה אתמול", "{name} הלכה הביתה אתמול", "{name} went home yesterday"),
    ("{name} פגש את {other} אתמול", "{name} פגשה את {other} אתמול", "{name} met {other} yesterday"),
    ("{name} שלח מכתב ל{other}", "{name} שלחה מכתב ל{other}", "{name} sent a letter to {other}"),
    ("{name} מחכה בתחנה", "{name} מחכה בתחנה", "{name} is waiting at the station"),
    ("{name} חוזר מחר מהים", "{name} חוזרת מחר מהים", "{name} returns tomorrow from the sea"),
    ("{name} מדבר בטלפון", "{name} מדברת בטלפון", "{name} is talking on the phone"),
    ("{name} עייף מאוד היום", "{name} עייפה מאוד היום", "{name} is very tired today"),
)
