//! What papers have printed on them, by language. Words only; what is done with them is elsewhere.

mod dutch;
mod english;
mod french;
mod german;
mod italian;
mod spanish;

/// The languages that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    English,
    German,
    French,
    Dutch,
    Spanish,
    Italian,
}

/// Several ways to say one thing.
type Words = &'static [&'static str];

/// The words of a language.
#[derive(Debug)]
pub(super) struct Labels {
    language: Language,
    pub(super) months: [&'static str; 12],
    pub(super) months_short: [&'static str; 12],
    /// The paper's title.
    pub(super) invoice: Words,
    pub(super) credit: Words,
    pub(super) number: Words,
    pub(super) credit_number: Words,
    pub(super) date: Words,
    /// Days that are not the day of issue.
    pub(super) other_dates: Words,
    /// Numbers that are not the paper's.
    pub(super) other_numbers: Words,
    pub(super) from: Words,
    pub(super) to: Words,
    /// Heads of columns.
    pub(super) position: Words,
    pub(super) code: Words,
    pub(super) description: Words,
    pub(super) quantity: Words,
    pub(super) unit: Words,
    pub(super) price: Words,
    pub(super) amount: Words,
    pub(super) rate: Words,
    /// Sums.
    pub(super) net: Words,
    pub(super) tax: Words,
    pub(super) total: Words,
    pub(super) total_net: Words,
    pub(super) tax_included: Words,
    pub(super) credit_total: Words,
    pub(super) discount: Words,
    pub(super) shipping: Words,
    pub(super) units: Words,
    pub(super) hours: Words,
    /// Before telephone numbers, and so on.
    pub(super) phone: Words,
    pub(super) mail: Words,
    pub(super) bank: Words,
    pub(super) tax_id: Words,
    pub(super) register: Words,
    pub(super) contact: Words,
    pub(super) currency: Words,
    /// Sentences at the end of a paper; `{n}` is a number of days.
    pub(super) terms: Words,
    pub(super) thanks: Words,
    pub(super) page: Words,
    /// Between a number and its date in one line.
    pub(super) of: Words,
    /// Parts of streets; `{}` is a name.
    pub(super) streets: Words,
    pub(super) goods_training: Words,
    pub(super) goods_unseen: Words,
    pub(super) kinds_training: Words,
    pub(super) kinds_unseen: Words,
    pub(super) services: Words,
    /// Sentences of letters; those of the unseen world are the last third.
    pub(super) letters: Words,
    pub(super) greetings: Words,
    pub(super) stock_title: Words,
    pub(super) stock_item: Words,
    pub(super) stock_target: Words,
    pub(super) stock_on_hand: Words,
    pub(super) stock_in: Words,
    pub(super) stock_out: Words,
    pub(super) stock_noise: Words,
}

impl Labels {
    /// A day with its month's name, as this language writes it.
    pub(super) fn named_day(&self, day: u32, month: &str, year: u32) -> String {
        match self.language {
            Language::German => format!("{day}. {month} {year}"),
            Language::Spanish => format!("{day} de {month} de {year}"),
            Language::French if day == 1 => format!("1er {month} {year}"),
            _ => format!("{day} {month} {year}"),
        }
    }
}

/// The words of that language.
pub(super) fn labels(language: Language) -> &'static Labels {
    match language {
        Language::English => &english::LABELS,
        Language::German => &german::LABELS,
        Language::French => &french::LABELS,
        Language::Dutch => &dutch::LABELS,
        Language::Spanish => &spanish::LABELS,
        Language::Italian => &italian::LABELS,
    }
}
