//! Countries: which language, money, taxes, dates, figures and addresses their papers have.

use super::day::DayForm::{self, *};
use super::labels::Language;
use crate::rng::Rng;

/// A currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Currency {
    /// ISO 4217, as answers write it.
    pub(super) code: &'static str,
    /// What people write instead. The first may name other currencies too, see [`Currency::shared`].
    pub(super) symbols: &'static [&'static str],
    /// Whether it has no smaller unit that is used.
    pub(super) whole: bool,
    /// Whether its symbols mean another currency elsewhere, so that a paper has to give a hint.
    pub(super) shared: bool,
}

const fn money(code: &'static str, symbols: &'static [&'static str], shared: bool) -> Currency {
    Currency {
        code,
        symbols,
        whole: false,
        shared,
    }
}

const EUR: Currency = money("EUR", &["€", "€", "EUR", "Euro"], false);
const USD: Currency = money("USD", &["$", "$", "US$", "USD"], false);
const GBP: Currency = money("GBP", &["£", "£", "GBP"], false);
const CHF: Currency = money("CHF", &["CHF", "Fr.", "SFr.", "CHF"], false);
const AUD: Currency = money("AUD", &["$", "A$", "AUD", "AU$"], true);
const CAD: Currency = money("CAD", &["$", "C$", "CAD", "CA$"], true);
const DKK: Currency = money("DKK", &["kr.", "kr", "DKK"], true);
const SEK: Currency = money("SEK", &["kr", "SEK", "kr"], true);
const NOK: Currency = money("NOK", &["kr", "NOK", "kr"], true);
const PLN: Currency = money("PLN", &["zł", "PLN", "zł"], false);
const CZK: Currency = money("CZK", &["Kč", "CZK"], false);
const HUF: Currency = Currency {
    code: "HUF",
    symbols: &["Ft", "HUF"],
    whole: true,
    shared: false,
};
const JPY: Currency = Currency {
    code: "JPY",
    symbols: &["¥", "JPY", "￥"],
    whole: true,
    shared: false,
};
const NZD: Currency = money("NZD", &["$", "NZ$", "NZD"], true);
const INR: Currency = money("INR", &["₹", "Rs.", "INR"], false);
const ZAR: Currency = money("ZAR", &["R", "ZAR"], false);
const MXN: Currency = money("MXN", &["$", "MXN", "MX$"], true);

/// What foreign customers are billed in.
const ABROAD: [Currency; 7] = [EUR, USD, GBP, CHF, JPY, SEK, CAD];

type Mark = (Option<char>, char);
const POINT: Mark = (None, '.');
const COMMAS: Mark = (Some(','), '.');
const COMMA: Mark = (None, ',');
const DOTS: Mark = (Some('.'), ',');
const SPACES: Mark = (Some(' '), ',');
const HARD_SPACES: Mark = (Some('\u{a0}'), ',');
const APOSTROPHES: Mark = (Some('\''), '.');
const CURLY: Mark = (Some('’'), '.');

/// How a country's papers look.
#[derive(Debug)]
pub(super) struct Country {
    /// As it stands in an address there.
    pub(super) name: &'static str,
    pub(super) language: Language,
    pub(super) currency: Currency,
    /// Rates of value added or sales tax, in tenths of a percent; usual ones first.
    pub(super) rates: &'static [u32],
    pub(super) days: &'static [DayForm],
    /// Thousands' mark and decimal mark.
    pub(super) figures: &'static [Mark],
    /// Cities with what stands before or behind them; `#` is a digit, `@` a letter.
    pub(super) cities: &'static [&'static str],
    /// Behind a vendor's name.
    pub(super) forms: &'static [&'static str],
    /// Telephone numbers, tax numbers, register numbers, bank accounts: `#` is a digit, `@` a letter.
    pub(super) phones: &'static [&'static str],
    pub(super) tax_ids: &'static [&'static str],
    pub(super) registers: &'static [&'static str],
    pub(super) banks: &'static [&'static str],
    /// Whether a house's number stands before its street.
    pub(super) number_first: bool,
    /// Whether people there pay prices that already hold the tax more often than not.
    pub(super) sales_tax: bool,
}

const EN_DAYS: &[DayForm] = &[
    Named,
    Named,
    NamedPadded,
    Joined('/'),
    JoinedPlain('/'),
    Ordinal,
    Short,
    ShortDashes,
    ShortDashesYear,
    Iso,
    Joined('.'),
    JoinedPlain('.'),
    JoinedShort('/'),
    NamedUpper,
    Joined('-'),
    MonthDay,
];
const US_DAYS: &[DayForm] = &[
    MonthDay,
    MonthDay,
    MonthDayPadded,
    MonthFirst,
    MonthFirstPlain,
    MonthFirstPlain,
    ShortMonthDay,
    Iso,
    MonthOrdinal,
    ShortDashes,
    Named,
    IsoSlashes,
];
const DE_DAYS: &[DayForm] = &[
    Joined('.'),
    Joined('.'),
    JoinedPlain('.'),
    Named,
    JoinedShort('.'),
    Iso,
    Joined('/'),
    NamedPadded,
];
const FR_DAYS: &[DayForm] = &[
    Joined('/'),
    Joined('/'),
    Named,
    JoinedPlain('/'),
    JoinedShort('/'),
    Joined('.'),
    Joined('-'),
    Short,
    Iso,
];
const NL_DAYS: &[DayForm] = &[
    Joined('-'),
    Joined('-'),
    JoinedPlain('-'),
    Named,
    Joined('/'),
    Short,
    JoinedShort('-'),
    Iso,
    Joined('.'),
];
const ES_DAYS: &[DayForm] = &[
    Joined('/'),
    Joined('/'),
    Named,
    JoinedPlain('/'),
    Joined('-'),
    JoinedShort('/'),
    Short,
    Iso,
    Joined('.'),
];
const IT_DAYS: &[DayForm] = &[
    Joined('/'),
    Joined('/'),
    Named,
    JoinedPlain('/'),
    Joined('-'),
    Joined('.'),
    JoinedShort('/'),
    Short,
    Iso,
];

macro_rules! country {
    ($name:literal, $language:ident, $currency:ident, $rates:expr, $days:expr, $figures:expr, $cities:expr,
     $forms:expr, $phones:expr, $tax_ids:expr, $registers:expr, $banks:expr, $number_first:literal) => {
        Country {
            name: $name,
            language: Language::$language,
            currency: $currency,
            rates: $rates,
            days: $days,
            figures: $figures,
            cities: $cities,
            forms: $forms,
            phones: $phones,
            tax_ids: $tax_ids,
            registers: $registers,
            banks: $banks,
            number_first: $number_first,
            sales_tax: false,
        }
    };
}

/// How often each country is drawn is how often it stands in `ORDER`.
static COUNTRIES: &[Country] = &[
    country!(
        "United Kingdom",
        English,
        GBP,
        &[200, 200, 50, 0],
        EN_DAYS,
        &[COMMAS, COMMAS, POINT],
        &[
            "Leeds @@# #@@",
            "London @@## #@@",
            "Bristol @@# #@@",
            "York @@## #@@",
            "Glasgow @# #@@"
        ],
        &["Ltd", "Ltd.", "PLC", "LLP", "Limited", "& Sons", "& Co."],
        &[
            "+44 20 #### ####",
            "0113 ### ####",
            "07### ######",
            "+44 (0)1### ######"
        ],
        &["GB ### #### ##", "GB#########"],
        &["0#######", "########"],
        &[
            "GB## @@@@ #### #### #### ##",
            "Sort code ##-##-## Account ########"
        ],
        true
    ),
    Country {
        sales_tax: true,
        ..country!(
            "USA",
            English,
            USD,
            &[0, 0, 0, 60, 72, 82, 88],
            US_DAYS,
            &[COMMAS, COMMAS, POINT],
            &[
                "Boston, MA 0####",
                "Austin, TX 787##",
                "Portland, OR 972##",
                "Denver, CO 802##",
                "Miami, FL 331##"
            ],
            &["Inc.", "LLC", "Corp.", "Inc", "& Sons", "Co."],
            &["(###) ###-####", "+1 ###-###-####", "###.###.####"],
            &["##-#######"],
            &["##-#######"],
            &["Routing ######### Account ##########", "ABA #########"],
            true
        )
    },
    country!(
        "Deutschland",
        German,
        EUR,
        &[190, 190, 190, 70, 0],
        DE_DAYS,
        &[DOTS, DOTS, COMMA, SPACES],
        &[
            "##### Hamburg",
            "##### Köln",
            "##### Leipzig",
            "##### Ulm",
            "D-##### Nürnberg",
            "##### Frankfurt am Main"
        ],
        &[
            "GmbH",
            "GmbH & Co. KG",
            "AG",
            "e.K.",
            "UG (haftungsbeschränkt)",
            "KG",
            "OHG",
            "GbR"
        ],
        &[
            "0## / ### ## ##",
            "+49 ### ######",
            "0#### ######",
            "+49 (0) ### ## ## ##",
            "0###-#######"
        ],
        &["DE#########", "DE ### ### ###", "##/###/#####"],
        &["HRB #####", "HRA ####", "HRB ###### B"],
        &[
            "DE## #### #### #### #### ##",
            "IBAN DE####################",
            "BLZ ### ### ## Kto. #######"
        ],
        false
    ),
    country!(
        "Österreich",
        German,
        EUR,
        &[200, 200, 100],
        DE_DAYS,
        &[DOTS, COMMA, SPACES],
        &[
            "10## Wien",
            "80## Graz",
            "A-50## Salzburg",
            "60## Innsbruck"
        ],
        &["GmbH", "OG", "KG", "e.U."],
        &["+43 1 ### ## ##", "0316 / ######"],
        &["ATU########"],
        &["FN ######@"],
        &["AT## #### #### #### ####"],
        false
    ),
    country!(
        "Schweiz",
        German,
        CHF,
        &[81, 81, 26, 77],
        DE_DAYS,
        &[APOSTROPHES, APOSTROPHES, CURLY, POINT],
        &["80## Zürich", "40## Basel", "30## Bern", "CH-60## Luzern"],
        &["AG", "GmbH", "& Cie"],
        &["+41 44 ### ## ##", "061 ### ## ##"],
        &["CHE-###.###.### MWST"],
        &["CHE-###.###.###"],
        &["CH## #### #### #### #### #"],
        false
    ),
    country!(
        "France",
        French,
        EUR,
        &[200, 200, 100, 55, 0],
        FR_DAYS,
        &[SPACES, SPACES, COMMA, HARD_SPACES, DOTS],
        &[
            "690## Lyon",
            "750## Paris",
            "310## Toulouse",
            "590## Lille",
            "440## Nantes"
        ],
        &["SARL", "SAS", "S.A.", "SA", "EURL", "& Fils", "SASU"],
        &["01 ## ## ## ##", "+33 4 ## ## ## ##", "06.##.##.##.##"],
        &["FR## ### ### ###", "FR###########"],
        &["### ### ### #####", "RCS Lyon ### ### ###"],
        &["FR## #### #### #### #### #### ###"],
        true
    ),
    country!(
        "Belgique",
        French,
        EUR,
        &[210, 210, 60],
        FR_DAYS,
        &[DOTS, SPACES, COMMA],
        &["10## Bruxelles", "40## Liège", "50## Namur"],
        &["SPRL", "SRL", "SA", "ASBL"],
        &["+32 2 ### ## ##", "04 ### ## ##"],
        &["BE 0###.###.###"],
        &["0###.###.###"],
        &["BE## #### #### ####"],
        false
    ),
    country!(
        "Suisse",
        French,
        CHF,
        &[81, 81, 26],
        FR_DAYS,
        &[APOSTROPHES, CURLY, POINT],
        &["12## Genève", "10## Lausanne", "20## Neuchâtel"],
        &["SA", "Sàrl", "& Cie"],
        &["+41 22 ### ## ##", "021 ### ## ##"],
        &["CHE-###.###.### TVA"],
        &["CHE-###.###.###"],
        &["CH## #### #### #### #### #"],
        false
    ),
    country!(
        "Nederland",
        Dutch,
        EUR,
        &[210, 210, 90, 0],
        NL_DAYS,
        &[DOTS, DOTS, COMMA],
        &[
            "#### @@ Utrecht",
            "#### @@ Rotterdam",
            "#### @@ Zwolle",
            "#### @@ 's-Hertogenbosch",
            "#### @@ Breda"
        ],
        &["B.V.", "BV", "V.O.F.", "N.V.", "& Zn."],
        &["0##-#######", "+31 6 ########", "030 ### ## ##"],
        &["NL#########B##"],
        &["########"],
        &["NL## @@@@ #### #### ##", "NL##@@@@##########"],
        false
    ),
    country!(
        "België",
        Dutch,
        EUR,
        &[210, 210, 60],
        NL_DAYS,
        &[DOTS, COMMA, SPACES],
        &["90## Gent", "20## Antwerpen", "B-30## Leuven"],
        &["BV", "NV", "BVBA", "VZW"],
        &["+32 9 ### ## ##", "03 ### ## ##"],
        &["BE 0###.###.###", "BE0#########"],
        &["0###.###.###"],
        &["BE## #### #### ####"],
        false
    ),
    country!(
        "España",
        Spanish,
        EUR,
        &[210, 210, 100, 40],
        ES_DAYS,
        &[DOTS, DOTS, COMMA, SPACES],
        &[
            "280## Madrid",
            "080## Barcelona",
            "410## Sevilla",
            "480## Bilbao",
            "150## A Coruña"
        ],
        &["S.L.", "S.A.", "SL", "S.L.U.", "e Hijos, S.L.", "S. Coop."],
        &["91 ### ## ##", "+34 ### ### ###", "6## ## ## ##"],
        &["B########", "A-########", "B-########"],
        &["Tomo ####, Folio ##"],
        &[
            "ES## #### #### ## ##########",
            "ES## #### #### #### #### ####"
        ],
        false
    ),
    country!(
        "México",
        Spanish,
        MXN,
        &[160, 160, 0],
        ES_DAYS,
        &[COMMAS, POINT],
        &["C.P. 06### Ciudad de México", "C.P. 44### Guadalajara"],
        &["S.A. de C.V.", "S. de R.L."],
        &["+52 55 #### ####", "(33) #### ####"],
        &["RFC @@@######@#@"],
        &["########"],
        &["CLABE ##################"],
        false
    ),
    country!(
        "Italia",
        Italian,
        EUR,
        &[220, 220, 100, 40],
        IT_DAYS,
        &[DOTS, DOTS, COMMA],
        &[
            "101## Torino TO",
            "201## Milano MI",
            "001## Roma RM",
            "401## Bologna BO",
            "501## Firenze FI"
        ],
        &[
            "S.r.l.",
            "SRL",
            "S.p.A.",
            "S.n.c.",
            "& C. S.a.s.",
            "S.r.l.s."
        ],
        &["011 #######", "+39 02 ########", "3## #######"],
        &["IT###########", "###########"],
        &["TO-#######", "MI-#######"],
        &["IT## @ ##### ##### ############"],
        false
    ),
    country!(
        "Australia",
        English,
        AUD,
        &[100, 100, 0],
        EN_DAYS,
        &[COMMAS, POINT],
        &["Sydney NSW 20##", "Melbourne VIC 30##", "Perth WA 60##"],
        &["Pty Ltd", "Pty. Ltd.", "& Co"],
        &["(02) #### ####", "+61 4## ### ###"],
        &["ABN ## ### ### ###"],
        &["ACN ### ### ###"],
        &["BSB ###-### Acc ########"],
        true
    ),
    country!(
        "Canada",
        English,
        CAD,
        &[50, 130, 150, 0],
        US_DAYS,
        &[COMMAS, POINT],
        &[
            "Toronto, ON @#@ #@#",
            "Calgary, AB @#@ #@#",
            "Halifax, NS @#@ #@#"
        ],
        &["Inc.", "Ltd.", "Corp."],
        &["(416) ###-####", "+1 ###-###-####"],
        &["GST ######### RT0001"],
        &["BN #########"],
        &["Transit ##### Account #######"],
        true
    ),
    country!(
        "Ireland",
        English,
        EUR,
        &[230, 230, 135],
        EN_DAYS,
        &[COMMAS, POINT],
        &["Cork @## @###", "Dublin #", "Galway @## @###"],
        &["Ltd", "DAC", "Limited"],
        &["+353 1 ### ####", "021 ### ####"],
        &["IE#######@@", "IE #######@"],
        &["######"],
        &["IE## @@@@ #### #### #### ##"],
        true
    ),
    country!(
        "Danmark",
        English,
        DKK,
        &[250, 250, 0],
        EN_DAYS,
        &[DOTS, COMMA],
        &["8000 Aarhus C", "2100 København Ø", "5000 Odense"],
        &["A/S", "ApS", "I/S"],
        &["+45 ## ## ## ##"],
        &["DK########"],
        &["CVR ########"],
        &["DK## #### #### #### ##"],
        false
    ),
    country!(
        "Sverige",
        English,
        SEK,
        &[250, 250, 120, 60],
        EN_DAYS,
        &[SPACES, COMMA, HARD_SPACES],
        &["753 ## Uppsala", "411 ## Göteborg", "111 ## Stockholm"],
        &["AB", "HB", "& Co AB"],
        &["+46 8 ### ## ##", "018-## ## ##"],
        &["SE##########01"],
        &["Org.nr ######-####"],
        &["Bankgiro ###-####"],
        false
    ),
    country!(
        "Norge",
        English,
        NOK,
        &[250, 250, 150],
        EN_DAYS,
        &[SPACES, COMMA, DOTS],
        &["0### Oslo", "50## Bergen", "70## Trondheim"],
        &["AS", "ASA", "ANS"],
        &["+47 ## ## ## ##"],
        &["NO ### ### ### MVA"],
        &["### ### ###"],
        &["NO## #### #### ###"],
        false
    ),
    country!(
        "Polska",
        English,
        PLN,
        &[230, 230, 80],
        EN_DAYS,
        &[SPACES, COMMA, POINT],
        &["80-### Gdańsk", "00-### Warszawa", "31-### Kraków"],
        &["Sp. z o.o.", "S.A.", "s.c."],
        &["+48 ### ### ###"],
        &["PL##########", "NIP ### ### ## ##"],
        &["KRS 0000######"],
        &["PL## #### #### #### #### #### ####"],
        false
    ),
    country!(
        "Japan",
        English,
        JPY,
        &[100, 100, 80],
        EN_DAYS,
        &[COMMAS, COMMAS, POINT],
        &["Tokyo 1##-00##", "Osaka 5##-00##", "Kyoto 6##-00##"],
        &["K.K.", "Co., Ltd.", "G.K."],
        &["+81 3 #### ####"],
        &["T#############"],
        &["####-##-######"],
        &["Branch ### Account #######"],
        true
    ),
    country!(
        "New Zealand",
        English,
        NZD,
        &[150, 150],
        EN_DAYS,
        &[COMMAS, POINT],
        &["Auckland 10##", "Wellington 60##"],
        &["Ltd", "Limited"],
        &["+64 9 ### ####"],
        &["GST ###-###-###"],
        &["NZBN #############"],
        &["##-####-#######-##"],
        true
    ),
    country!(
        "India",
        English,
        INR,
        &[180, 180, 120, 50],
        EN_DAYS,
        &[COMMAS, POINT],
        &["Pune 4110##", "Chennai 6000##", "Bengaluru 5600##"],
        &["Pvt. Ltd.", "Pvt Ltd", "& Bros."],
        &["+91 ##### #####"],
        &["GSTIN ##@@@@@####@#Z#"],
        &["CIN U#####KA####PTC######"],
        &["IFSC @@@@0###### A/c ############"],
        true
    ),
    country!(
        "South Africa",
        English,
        ZAR,
        &[150, 150],
        EN_DAYS,
        &[SPACES, COMMAS, POINT],
        &["Cape Town 80##", "Durban 40##"],
        &["(Pty) Ltd", "CC"],
        &["+27 21 ### ####"],
        &["VAT ##########"],
        &["####/######/07"],
        &["Branch ###### Acc ##########"],
        true
    ),
    country!(
        "Česko",
        English,
        CZK,
        &[210, 210, 120],
        EN_DAYS,
        &[SPACES, COMMA],
        &["110 ## Praha", "602 ## Brno"],
        &["s.r.o.", "a.s."],
        &["+420 ### ### ###"],
        &["CZ########"],
        &["IČO ########"],
        &["CZ## #### #### #### #### ####"],
        false
    ),
    country!(
        "Magyarország",
        English,
        HUF,
        &[270, 270, 50],
        EN_DAYS,
        &[SPACES, DOTS],
        &["10## Budapest", "40## Debrecen"],
        &["Kft.", "Zrt.", "Bt."],
        &["+36 1 ### ####"],
        &["HU########"],
        &["##-##-######"],
        &["HU## #### #### #### #### #### ####"],
        false
    ),
];

/// The first countries are those of the six languages; they are drawn more often.
const USUAL: usize = 13;
/// Of a hundred papers, those of the usual countries.
const USUAL_PERCENT: u32 = 75;
/// Of a hundred papers, those in another currency than the country's.
const ABROAD_PERCENT: u32 = 7;

/// A country, and the currency of a paper from there.
pub(super) fn draw(rng: &mut Rng) -> (&'static Country, Currency) {
    let country = if rng.chance(USUAL_PERCENT) {
        &COUNTRIES[rng.index(USUAL)]
    } else {
        &COUNTRIES[USUAL + rng.index(COUNTRIES.len() - USUAL)]
    };
    let currency = if rng.chance(ABROAD_PERCENT) {
        ABROAD[rng.index(ABROAD.len())]
    } else {
        country.currency
    };
    (country, currency)
}

/// A pattern with its `#` as digits and its `@` as letters. What begins a number is no zero.
pub(super) fn filled(rng: &mut Rng, pattern: &str) -> String {
    let mut before = ' ';
    pattern
        .chars()
        .map(|c| {
            let c = match c {
                '#' if before == ' ' => digit(rng.between(1, 9)),
                '#' => digit(rng.below(10)),
                '@' => crate::shipped::letter(rng),
                other => other,
            };
            before = c;
            c
        })
        .collect()
}

/// One of the patterns, [`filled`].
pub(super) fn filled_one(rng: &mut Rng, patterns: &[&'static str]) -> String {
    let pattern = patterns[rng.index(patterns.len())];
    filled(rng, pattern)
}

fn digit(value: u32) -> char {
    char::from_digit(value, 10).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_filled_with_digits_and_letters() {
        let number = filled(&mut Rng::new(4), "DE## @# ##x");
        assert_eq!(number.len(), 11);
        assert!(number.starts_with("DE") && number.ends_with('x'));
        assert!(!number.contains(['#', '@']));
    }

    #[test]
    fn every_country_is_drawn_and_some_bill_in_foreign_money() {
        let mut rng = Rng::new(1);
        let drawn: Vec<_> = (0..5_000).map(|_| draw(&mut rng)).collect();
        for country in COUNTRIES {
            assert!(
                drawn.iter().any(|(c, _)| c.name == country.name),
                "{}",
                country.name
            );
        }
        assert!(drawn.iter().any(|(c, money)| c.currency != *money));
    }
}
