//! Countries of the six languages.

use super::{
    APOSTROPHES, CHF, COMMA, COMMAS, CURLY, Country, DE_DAYS, DOTS, EN_DAYS, ES_DAYS, EUR, FR_DAYS,
    GBP, HARD_SPACES, IT_DAYS, Language, MXN, NL_DAYS, POINT, SPACES, US_DAYS, USD, country,
};

pub(super) static USUAL: &[Country] = &[
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
];
