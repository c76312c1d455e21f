//! Pure. Finds runs of one length that a long stream and a short text have in common.
//!
//! Indexes the text and reads the stream once, so that the time is linear in the stream.

use std::collections::HashMap;
use std::ops::Range;

use super::views::View;

/// A run of at most 16 bytes as a number.
pub(super) fn window(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |window, byte| window << 8 | u128::from(*byte))
}

/// Every run of one length in the views of a text.
pub(super) struct Index<'v> {
    views: &'v [View],
    length: usize,
    ids: HashMap<u128, usize>,
    /// One bit for a few runs, so that almost no step of a stream needs `ids`.
    filter: Vec<u64>,
}

impl<'v> Index<'v> {
    /// `length` is 1 to 16.
    pub(super) fn new(views: &'v [View], length: usize) -> Index<'v> {
        let runs: usize = views.iter().map(|view| view.bytes().len()).sum();
        let mut index = Index {
            views,
            length,
            ids: HashMap::with_capacity(runs),
            filter: vec![0; (runs / 4).next_power_of_two().max(64)],
        };
        for run in views.iter().flat_map(|view| view.bytes().windows(length)) {
            let (run, next) = (window(run), index.ids.len());
            index.ids.entry(run).or_insert(next);
            let bit = index.bit(run);
            index.filter[bit / 64] |= 1 << (bit % 64);
        }
        index
    }

    fn bit(&self, run: u128) -> usize {
        let folded = (run as u64 ^ (run >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (folded >> 32) as usize & (self.filter.len() * 64 - 1)
    }

    fn id(&self, run: u128) -> Option<usize> {
        let bit = self.bit(run);
        let maybe = self.filter[bit / 64] & 1 << (bit % 64) != 0;
        maybe.then(|| self.ids.get(&run).copied()).flatten()
    }
}

/// The runs of an index that a stream has.
pub(super) struct Matches<'i, 'v> {
    index: &'i Index<'v>,
    seen: Vec<bool>,
    window: u128,
    length: usize,
    used: u128,
}

impl<'i, 'v> Matches<'i, 'v> {
    pub(super) fn of(index: &'i Index<'v>) -> Matches<'i, 'v> {
        let used = u128::MAX >> (128 - 8 * index.length.min(16));
        Matches { index, seen: vec![false; index.ids.len()], window: 0, length: 0, used }
    }

    /// Begins another stream.
    pub(super) fn begin(&mut self) {
        self.length = 0;
    }

    /// Adds the next byte of the stream.
    pub(super) fn push(&mut self, byte: u8) {
        self.window = self.window << 8 | u128::from(byte);
        self.length += 1;
        if self.length >= self.index.length {
            self.see(self.window & self.used);
        }
    }

    /// Adds a whole run.
    pub(super) fn see(&mut self, run: u128) {
        if let Some(id) = self.index.id(run) {
            self.seen[id] = true;
        }
    }

    /// Whether anything was found.
    pub(super) fn any(&self) -> bool {
        self.seen.contains(&true)
    }

    /// The runs that were found here and not there.
    pub(super) fn without(mut self, other: &Matches<'_, '_>) -> Self {
        self.seen.iter_mut().zip(&other.seen).for_each(|(seen, other)| *seen &= !other);
        self
    }

    /// Where in the text the runs are that were found.
    pub(super) fn spans(&self) -> impl Iterator<Item = Range<usize>> {
        let length = self.index.length;
        self.index.views.iter().flat_map(move |view| {
            let runs = view.bytes().windows(length).enumerate();
            let found = runs.filter(|(_, run)| self.index.ids.get(&window(run)).is_some_and(|id| self.seen[*id]));
            found.map(move |(at, _)| view.span(at, length))
        })
    }
}
