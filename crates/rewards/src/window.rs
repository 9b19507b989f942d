//! The window: the newest closed slices that a block is paid to (pay per last N shares, in whole slices).

use std::collections::VecDeque;

use crate::weight::Weight;

/// How much weight a window holds, in difficulties: 1 to [`WindowLength::MAX`], 8 by default. A longer one pays more
/// evenly, and later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowLength(u16);

/// A length out of its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a window holds 1 to {} difficulties", WindowLength::MAX)]
pub struct WindowLengthOutOfRange;

impl WindowLength {
    /// The longest: at one percent of the network's hashes its last share is paid after two years.
    pub const MAX: u16 = 1_024;

    /// So many difficulties.
    ///
    /// # Errors
    /// [`WindowLengthOutOfRange`].
    pub const fn new(difficulties: u16) -> Result<Self, WindowLengthOutOfRange> {
        match difficulties >= 1 && difficulties <= Self::MAX {
            true => Ok(Self(difficulties)),
            false => Err(WindowLengthOutOfRange),
        }
    }

    /// The number of difficulties.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// As weight.
    pub fn weight(self) -> Weight {
        let weight = u128::from(self.0) * Weight::PER_DIFFICULTY.get();
        Weight::new(weight).expect("at most 2^10 difficulties of 2^100")
    }
}

impl Default for WindowLength {
    fn default() -> Self {
        Self(8)
    }
}

/// A slice, as a window sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSlice {
    /// Its number.
    pub number: u64,
    /// What it holds; more than nothing.
    pub total: Weight,
}

/// The newest closed slices that together hold the window's length: as few as do it. The oldest counts whole, so a full
/// window holds its length, and less than one slice more. Before so much was mined, it is all slices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    length: WindowLength,
    /// From the oldest to the newest: `1024 * length` slices of [`Slice::SIZE`](crate::Slice::SIZE), and more if some closed
    /// for their accounts, which takes 65,536 shares each.
    slices: VecDeque<WindowSlice>,
    total: Weight,
}

/// Why a slice is not the next of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Its number is not one from that beside it.
    #[error("slice {0} does not stand beside the one before")]
    Gap(u64),
    /// It holds nothing, or more than a slice can.
    #[error("slice {0} holds no weight that a slice can hold")]
    Total(u64),
}

impl Window {
    /// Before the first slice has closed.
    pub fn new(length: WindowLength) -> Self {
        Self {
            length,
            slices: VecDeque::new(),
            total: Weight::ZERO,
        }
    }

    /// The window over slices that are given from the newest to the oldest. Takes no more of them than it needs.
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn from_newest(
        length: WindowLength,
        slices: impl IntoIterator<Item = WindowSlice>,
    ) -> Result<Self, WindowError> {
        let mut window = Self::new(length);
        let mut slices = slices.into_iter();
        while window.total < length.weight()
            && let Some(slice) = slices.next()
        {
            let newer = window.slices.front().map(|newer| newer.number);
            if newer.is_some_and(|newer| slice.number.checked_add(1) != Some(newer)) {
                return Err(WindowError::Gap(slice.number));
            }
            window.total = window.with(slice)?;
            window.slices.push_front(slice);
        }
        Ok(window)
    }

    /// Takes the slice that has just closed. Returns the slices that are no longer in the window, oldest first: their
    /// accounts' weight is to be subtracted from the window's.
    ///
    /// # Errors
    /// [`WindowError`]; then nothing has changed.
    pub fn push(&mut self, slice: WindowSlice) -> Result<Vec<WindowSlice>, WindowError> {
        let older = self.slices.back().map(|older| older.number);
        if older.is_some_and(|older| older.checked_add(1) != Some(slice.number)) {
            return Err(WindowError::Gap(slice.number));
        }
        self.total = self.with(slice)?;
        self.slices.push_back(slice);
        let mut gone = Vec::new();
        while let Some(oldest) = self.slices.front()
            && let Some(newer) = self.total.checked_sub(oldest.total)
            && newer >= self.length.weight()
        {
            self.total = newer;
            gone.extend(self.slices.pop_front());
        }
        Ok(gone)
    }

    fn with(&self, slice: WindowSlice) -> Result<Weight, WindowError> {
        // A slice closes with the share that fills it: two difficulties at most.
        let most = 2 * Weight::PER_DIFFICULTY.get();
        match slice.total.get() {
            1.. if slice.total.get() <= most => self.total.checked_add(slice.total).ok(),
            _ => None,
        }
        .ok_or(WindowError::Total(slice.number))
    }

    /// How much it holds.
    pub fn length(&self) -> WindowLength {
        self.length
    }

    /// The slices, from the oldest to the newest.
    pub fn slices(&self) -> impl ExactSizeIterator<Item = WindowSlice> + DoubleEndedIterator {
        self.slices.iter().copied()
    }

    /// What they hold.
    pub fn total(&self) -> Weight {
        self.total
    }

    /// Whether enough was mined to fill it.
    pub fn is_full(&self) -> bool {
        self.total >= self.length.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const ONE: u128 = Weight::PER_DIFFICULTY.get();

    fn slice(number: u64, total: u128) -> WindowSlice {
        WindowSlice {
            number,
            total: Weight::new(total).unwrap(),
        }
    }

    fn length(difficulties: u16) -> WindowLength {
        WindowLength::new(difficulties).unwrap()
    }

    fn numbers(window: &Window) -> Vec<u64> {
        window.slices().map(|slice| slice.number).collect()
    }

    #[test]
    fn a_window_holds_its_length_in_as_few_slices_as_do_it() {
        let mut window = Window::new(length(1));
        for n in 0..4 {
            assert!(!window.is_full());
            assert_eq!(window.push(slice(n, ONE / 4)).unwrap(), []);
        }
        assert!(window.is_full());
        // Exactly full without the oldest: it goes.
        assert_eq!(window.push(slice(4, ONE / 4)).unwrap(), [slice(0, ONE / 4)]);
        // One short of full without the oldest: it stays, and counts whole.
        assert_eq!(window.push(slice(5, ONE / 4 - 1)).unwrap(), []);
        assert_eq!(window.total().get(), ONE + ONE / 4 - 1);
        // A large slice takes the place of many.
        assert_eq!(window.push(slice(6, ONE)).unwrap().len(), 5);
        assert_eq!(numbers(&window), [6]);
    }

    #[test]
    fn a_window_that_is_exactly_full_takes_no_older_slice() {
        let newest = [2, 1, 0].map(|number| slice(number, ONE / 2));
        let window = Window::from_newest(length(1), newest).unwrap();
        assert_eq!(numbers(&window), [1, 2]);
    }

    #[test]
    fn what_does_not_follow_or_holds_nothing_is_refused() {
        let mut window = Window::new(length(1));
        window.push(slice(5, 1)).unwrap();
        let before = window.clone();
        for number in [4, 5, 7] {
            assert_eq!(window.push(slice(number, 1)), Err(WindowError::Gap(number)));
        }
        for total in [0, 2 * ONE + 1] {
            assert_eq!(window.push(slice(6, total)), Err(WindowError::Total(6)));
        }
        assert_eq!(window, before);
        let gap = Window::from_newest(length(1), [slice(6, 1), slice(4, 1)]);
        assert_eq!(gap, Err(WindowError::Gap(4)));
        let last = Window::from_newest(length(1), [slice(0, 1), slice(u64::MAX, 1)]);
        assert_eq!(last, Err(WindowError::Gap(u64::MAX)));
    }

    #[test]
    fn lengths_have_bounds() {
        assert_eq!(WindowLength::new(0), Err(WindowLengthOutOfRange));
        assert_eq!(WindowLength::new(1_025), Err(WindowLengthOutOfRange));
        assert_eq!(WindowLength::default().weight().get(), 8 * ONE);
        assert_eq!(length(1_024).weight().get(), 1 << 110);
    }

    proptest! {
        #[test]
        fn a_window_that_grew_is_the_window_over_all(totals in vec(1..2 * ONE, 0..60), of in 1_u16..12) {
            let mut window = Window::new(length(of));
            let slices: Vec<_> = (0..).zip(&totals).map(|(n, total)| slice(n, *total)).collect();
            let mut gone = Vec::new();
            for slice in &slices {
                gone.extend(window.push(*slice).unwrap());
                let oldest = window.slices().next().unwrap().total.get();
                let total = window.total().get();
                prop_assert_eq!(total, window.slices().map(|slice| slice.total.get()).sum::<u128>());
                prop_assert!(total < u128::from(of) * ONE + oldest);
                prop_assert!(gone.is_empty() || window.is_full());
            }
            let newest = slices.iter().rev().copied();
            prop_assert_eq!(&Window::from_newest(length(of), newest).unwrap(), &window);
            gone.extend(window.slices());
            prop_assert_eq!(gone, slices);
        }
    }
}
