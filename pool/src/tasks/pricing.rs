//! What tasks cost, and who pays for them. The ledger admits none that is not paid for.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::bail;
use dovetail_commitment::ModelId;
use dovetail_ledger::{Payer, SubsidyBudget};
use dovetail_units::{Msat, TokenPrices};

use super::order::Payment;
use crate::config::{InferenceConfig, SubsidyConfig};
use crate::models::Models;

/// How long a quote holds. Prices only change with the configuration.
pub(super) const QUOTE_VALIDITY: Duration = Duration::from_secs(60);

/// The pool's prices; clones are cheap enough for a start.
#[derive(Debug, Clone)]
pub(crate) struct Prices {
    all: TokenPrices,
    of_models: HashMap<ModelId, TokenPrices>,
    budget: SubsidyBudget,
}

impl Prices {
    /// The configured prices.
    ///
    /// # Errors
    /// If a model is named that the pool does not have.
    pub(crate) fn new(config: &InferenceConfig, models: &Models) -> anyhow::Result<Self> {
        Ok(Self {
            all: config.price,
            of_models: of_models(&config.model_prices, models)?,
            budget: config.subsidy.into(),
        })
    }

    /// The same prices for all models, at the cost of this budget.
    #[cfg(test)]
    pub(crate) fn of_all(all: TokenPrices, budget: SubsidyBudget) -> Self {
        Self {
            all,
            of_models: HashMap::new(),
            budget,
        }
    }

    /// What tokens of this model cost, and earn their worker.
    pub(crate) fn of(&self, model: &ModelId) -> TokenPrices {
        self.of_models.get(model).copied().unwrap_or(self.all)
    }

    /// Whether the operator has a budget for tasks of agents that show no key.
    pub(super) fn operator_pays(&self) -> bool {
        self.budget.per_day > Msat::ZERO && self.budget.in_all > Msat::ZERO
    }

    /// Who pays for a task.
    pub(super) fn payer(&self, payment: Payment) -> Payer {
        match payment {
            Payment::Subsidy => Payer::Operator(self.budget),
            Payment::Key(key) => Payer::Key(key),
        }
    }
}

/// Prices by the ids of models, which the configuration names by name or id.
fn of_models(
    named: &BTreeMap<String, TokenPrices>,
    models: &Models,
) -> anyhow::Result<HashMap<ModelId, TokenPrices>> {
    let mut prices = HashMap::new();
    for (name, price) in named {
        let called = |id: ModelId, of_model: &str| *name == id.to_string() || name == of_model;
        let mut ids = models
            .iter()
            .filter(|model| called(model.id(), model.name()))
            .map(|model| model.id())
            .peekable();
        if ids.peek().is_none() {
            bail!("inference.model_prices names {name:?}, which is none of inference.models");
        }
        prices.extend(ids.map(|id| (id, *price)));
    }
    Ok(prices)
}

impl From<SubsidyConfig> for SubsidyBudget {
    fn from(config: SubsidyConfig) -> Self {
        Self {
            per_day: Msat::new(config.msat_per_day),
            in_all: Msat::new(config.msat_in_all),
        }
    }
}

/// What a task would cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quote {
    pub(crate) id: [u8; 32],
    /// The whole task at most.
    pub(crate) price_max: Msat,
    pub(crate) prices: TokenPrices,
    /// Until when it holds, since 1970.
    pub(crate) expires_at: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::tests::tiny_model;

    #[test]
    fn a_models_own_price_goes_before_that_of_all_and_a_price_of_no_model_is_refused() {
        let model = tiny_model(1);
        let models: Models = [model.clone()].into_iter().collect();
        let price = TokenPrices::new(1, 2).unwrap();
        for name in [model.name().to_owned(), model.id().to_string()] {
            let named = BTreeMap::from([(name, price)]);
            assert_eq!(of_models(&named, &models).unwrap()[&model.id()], price);
        }
        let named = BTreeMap::from([("another".to_owned(), price)]);
        let refused = of_models(&named, &models).unwrap_err().to_string();
        assert!(refused.contains("another"), "{refused}");
    }
}
