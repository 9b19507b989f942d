//! What one address may have of the operator's budget on a day, so that no address has all of it. It counts in memory alone:
//! addresses are not written down. After a restart it counts anew; the budget itself is the ledger's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use dovetail_ledger::Lack;
use dovetail_units::time::unix_now;
use dovetail_units::{Msat, TokenPrices};

const DAY_S: u64 = 86_400;
/// So many addresses are told apart: some megabytes. All others share one allowance.
const ADDRESSES_MAX: usize = 65_536;
/// Who stands for them.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The allowances; clones share them.
#[derive(Clone)]
pub(super) struct Allowances(Arc<Shared>);

struct Shared {
    /// What tasks of one address may cost on a day (UTC); `None`: whatever the budget gives.
    per_day: Option<Msat>,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    /// Counted from 1970.
    day: u64,
    of: HashMap<IpAddr, Allowance>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Allowance {
    /// For tasks that have not ended.
    reserved: i64,
    /// What tasks have cost that were settled on this day.
    spent: i64,
}

/// What a task takes of its address's allowance. Dropping it gives that back.
pub(super) struct Hold {
    shared: Arc<Shared>,
    address: IpAddr,
    amount: i64,
    prices: TokenPrices,
    input_tokens: u32,
}

/// What a task may cost, and how that is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) most: Msat,
    pub(super) prices: TokenPrices,
    pub(super) input_tokens: u32,
}

impl Allowances {
    pub(super) fn new(per_day: Option<Msat>) -> Self {
        Self(Arc::new(Shared {
            per_day,
            book: Mutex::default(),
        }))
    }

    /// Takes what a task of this address may cost; `None` where nothing is counted.
    pub(super) fn take(&self, address: IpAddr, cost: Cost) -> Result<Option<Hold>, Lack> {
        self.take_on(address, cost, unix_now() / DAY_S)
    }

    fn take_on(&self, address: IpAddr, cost: Cost, day: u64) -> Result<Option<Hold>, Lack> {
        let Some(per_day) = self.0.per_day.filter(|_| cost.most > Msat::ZERO) else {
            return Ok(None);
        };
        let required = cost.most;
        if required > per_day {
            return Err(Lack::TooDear {
                most: per_day,
                required,
            });
        }
        let mut book = self.0.book();
        book.turn(day);
        let address = book.place_of(address);
        let allowance = book.of.entry(address).or_default();
        let after = |used: i64| used.saturating_add(required.get());
        if after(allowance.spent) > per_day.get() {
            return Err(Lack::DailyLimit {
                per_day,
                resets_at_unix: day.saturating_add(1).saturating_mul(DAY_S),
            });
        }
        let used = allowance.spent.saturating_add(allowance.reserved);
        if after(used) > per_day.get() {
            return Err(Lack::BalanceReserved {
                available: Msat::new(per_day.get().saturating_sub(used).max(0)),
                reserved: Msat::new(allowance.reserved),
                required,
            });
        }
        allowance.reserved = after(allowance.reserved);
        Ok(Some(Hold {
            shared: Arc::clone(&self.0),
            address,
            amount: required.get(),
            prices: cost.prices,
            input_tokens: cost.input_tokens,
        }))
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        // What a panic leaves is a whole map, and numbers that are too high at worst.
        self.book
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Book {
    /// A new day: what was spent is forgotten, and with it whoever holds nothing.
    fn turn(&mut self, day: u64) {
        // A clock that is set back by some hours gives nobody a second day.
        if day <= self.day {
            return;
        }
        self.day = day;
        self.of.retain(|_, allowance| {
            allowance.spent = 0;
            allowance.reserved > 0
        });
    }

    /// Where this address is counted.
    fn place_of(&self, address: IpAddr) -> IpAddr {
        let is_full = self.of.len() >= ADDRESSES_MAX;
        match is_full && !self.of.contains_key(&address) {
            true => OTHERS,
            false => address,
        }
    }
}

impl Hold {
    /// The task was settled with so many tokens of output: what it cost counts for this day.
    pub(super) fn spend(self, output_tokens: u32) {
        let cost = self.prices.of(self.input_tokens, output_tokens);
        self.spend_on(cost, unix_now() / DAY_S);
    }

    fn spend_on(self, cost: Msat, day: u64) {
        let mut book = self.shared.book();
        book.turn(day);
        if let Some(allowance) = book.of.get_mut(&self.address) {
            allowance.spent = allowance.spent.saturating_add(cost.get());
        }
        // Dropping this gives the rest back: not under the lock.
        drop(book);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut book = self.shared.book();
        if let Some(allowance) = book.of.get_mut(&self.address) {
            allowance.reserved = allowance.reserved.saturating_sub(self.amount).max(0);
            if allowance.reserved == 0 && allowance.spent == 0 {
                book.of.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 20_000;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    fn cost(most: i64) -> Cost {
        Cost {
            most: Msat::new(most),
            prices: TokenPrices::new(1_000_000, 1_000_000).unwrap(),
            input_tokens: 10,
        }
    }

    fn taken(of: &Allowances, n: u32, most: i64, day: u64) -> Result<Hold, Lack> {
        of.take_on(address(n), cost(most), day).map(Option::unwrap)
    }

    #[test]
    fn an_address_has_its_part_of_the_day_and_takes_nothing_of_others() {
        let allowances = Allowances::new(Some(Msat::new(100)));
        let first = taken(&allowances, 1, 60, DAY).unwrap();
        let reserved = Lack::BalanceReserved {
            available: Msat::new(40),
            reserved: Msat::new(60),
            required: Msat::new(41),
        };
        assert_eq!(taken(&allowances, 1, 41, DAY).err(), Some(reserved));
        let second = taken(&allowances, 1, 40, DAY).unwrap();
        assert!(taken(&allowances, 2, 100, DAY).is_ok());
        // A task that was not settled costs nothing, and another costs what came of it.
        drop(second);
        first.spend_on(Msat::new(30), DAY);
        let third = taken(&allowances, 1, 70, DAY).unwrap();
        third.spend_on(Msat::new(70), DAY);
        let limit = Lack::DailyLimit {
            per_day: Msat::new(100),
            resets_at_unix: (DAY + 1) * DAY_S,
        };
        assert_eq!(taken(&allowances, 1, 1, DAY).err(), Some(limit));
        assert!(taken(&allowances, 1, 100, DAY + 1).is_ok());
        // The clock was set back.
        assert!(taken(&allowances, 1, 100, DAY).is_ok());
        let too_dear = Lack::TooDear {
            most: Msat::new(100),
            required: Msat::new(101),
        };
        assert_eq!(taken(&allowances, 3, 101, DAY).err(), Some(too_dear));
    }

    #[test]
    fn what_is_held_over_midnight_is_part_of_the_next_day() {
        let allowances = Allowances::new(Some(Msat::new(100)));
        let held = taken(&allowances, 1, 60, DAY).unwrap();
        assert!(taken(&allowances, 1, 41, DAY + 1).is_err());
        held.spend_on(Msat::new(60), DAY + 1);
        assert!(taken(&allowances, 1, 41, DAY + 1).is_err());
        assert!(taken(&allowances, 1, 40, DAY + 1).is_ok());
    }

    #[test]
    fn however_many_addresses_there_are_few_are_told_apart_and_nobody_goes_uncounted() {
        let allowances = Allowances::new(Some(Msat::new(100)));
        let most = u32::try_from(ADDRESSES_MAX).unwrap();
        let held: Vec<Hold> = (0..most)
            .map(|n| taken(&allowances, n, 1, DAY).unwrap())
            .collect();
        let first = taken(&allowances, most, 60, DAY).unwrap();
        assert!(taken(&allowances, most + 1, 41, DAY).is_err());
        // Those who were there before are themselves.
        assert!(taken(&allowances, 0, 99, DAY).is_ok());
        assert_eq!(allowances.0.book().of.len(), ADDRESSES_MAX + 1);
        drop((held, first));
        assert_eq!(allowances.0.book().of.len(), 0);
    }

    #[test]
    fn without_a_limit_and_for_tasks_that_cost_nothing_nothing_is_counted() {
        let unlimited = Allowances::new(None);
        assert!(matches!(unlimited.take(address(1), cost(9)), Ok(None)));
        let limited = Allowances::new(Some(Msat::ZERO));
        assert!(matches!(limited.take(address(1), cost(0)), Ok(None)));
        assert!(limited.take(address(1), cost(1)).is_err());
    }
}
