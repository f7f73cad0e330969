//! The pages of keys and values: who holds them, and which can be found again by the tokens they were made from.

use std::collections::BTreeMap;

use minke_kernels::kv::{KvLayout, KvPages, PAGE_POSITIONS};

/// What a page holds: the page before it (none for a sequence's first), and the tokens at its first positions. A full page
/// stands for all tokens up to its end, since the page before cannot go while this one can be found.
type Content = (Option<u32>, Vec<u32>);

/// All pages. A full page is shared by all sequences that begin alike; a page that is not full has one holder, and others
/// copy it.
pub(crate) struct Pages {
    kv: KvPages,
    limit: usize,
    pages: Vec<Page>,
    free: Vec<u32>,
    /// Pages that can be found by what they hold. Neighbours in this order share the longest beginnings.
    index: BTreeMap<Content, u32>,
    /// Pages in the index that nobody holds, in the order in which they were let go. A page is let go before the page
    /// before it, so the first is never another's predecessor.
    idle: BTreeMap<u64, u32>,
    let_go: u64,
}

#[derive(Clone, Default)]
struct Page {
    holders: usize,
    /// Its key in `idle`, when nobody holds it.
    let_go: u64,
    /// Its key in `index`, if it is there. The page may hold more positions than this says.
    content: Option<Content>,
}

impl Pages {
    pub fn new(layout: KvLayout, limit: usize) -> Pages {
        Pages {
            kv: KvPages::new(layout, 0),
            // Pages are numbered by u32.
            limit: limit.min(u32::MAX as usize),
            pages: Vec::new(),
            free: Vec::new(),
            index: BTreeMap::new(),
            idle: BTreeMap::new(),
            let_go: 0,
        }
    }

    pub fn kv(&mut self) -> &mut KvPages {
        &mut self.kv
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Pages that nobody holds but can be found.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Pages with a holder.
    pub fn held(&self) -> usize {
        self.pages.len() - self.free.len() - self.idle.len()
    }

    /// Pages that could be taken.
    pub fn spare(&self) -> usize {
        self.limit - self.held()
    }

    /// Pages for all of `tokens`, and how many of their positions are there already: whole pages are shared, the one after
    /// them is copied if a page begins alike. At least one token is left to run. None, and nothing changed, if fewer than
    /// `spare` pages would be left for others.
    pub fn start(&mut self, tokens: &[u32], spare: usize) -> Option<(Vec<u32>, usize)> {
        let mut held = Vec::new();
        let mut alike = None;
        for part in tokens[..tokens.len() - 1].chunks(PAGE_POSITIONS) {
            match self.find(held.last().copied(), part) {
                Some((page, PAGE_POSITIONS)) => held.push(page),
                found => {
                    alike = found;
                    break;
                }
            }
        }
        let total = tokens.len().div_ceil(PAGE_POSITIONS);
        let woken = held.iter().filter(|&&page| self.page(page).holders == 0).count();
        if self.spare() < woken + total - held.len() + spare {
            return None;
        }
        held.iter().for_each(|&page| self.hold(page));
        let mut computed = held.len() * PAGE_POSITIONS;
        if let Some((page, common)) = alike
            && let Some(copy) = self.copy(page)
        {
            held.push(copy);
            computed += common;
        }
        while held.len() < total {
            held.push(self.take().expect("there is room, as was checked above"));
        }
        Some((held, computed))
    }

    /// A page for one holder, empty: one never used, or the one that was let go longest ago.
    pub fn take(&mut self) -> Option<u32> {
        let page = if let Some(page) = self.free.pop() {
            page
        } else if self.pages.len() < self.limit {
            self.pages.push(Page::default());
            self.kv.grow(self.pages.len());
            self.pages.len() as u32 - 1
        } else {
            let (_, page) = self.idle.pop_first()?;
            self.forget(page);
            page
        };
        self.page(page).holders = 1;
        Some(page)
    }

    /// Says that a sequence's positions `from..to` have been computed. Pages that became full can be found from now on; where
    /// an equal one could be found already, it takes the place of the sequence's own.
    pub fn computed(&mut self, held: &mut [u32], tokens: &[u32], from: usize, to: usize) {
        for k in from / PAGE_POSITIONS..to / PAGE_POSITIONS {
            let equal = self.record(held, tokens, k, (k + 1) * PAGE_POSITIONS);
            if equal != held[k] {
                self.hold(equal);
                self.let_go(held[k]);
                held[k] = equal;
            }
        }
    }

    /// Makes the last page, not full, of a sequence with `to` computed positions findable as well.
    pub fn share_rest(&mut self, held: &[u32], tokens: &[u32], to: usize) {
        if !to.is_multiple_of(PAGE_POSITIONS) {
            self.record(held, tokens, to / PAGE_POSITIONS, to);
        }
    }

    /// Takes back all pages of a sequence with `computed` positions; what they hold can still be found.
    pub fn give_back(&mut self, held: &mut Vec<u32>, tokens: &[u32], computed: usize) {
        self.share_rest(held, tokens, computed);
        while let Some(page) = held.pop() {
            self.let_go(page);
        }
    }

    /// Forgets what all pages hold; nobody may hold one.
    pub fn clear(&mut self) {
        assert_eq!(self.held(), 0, "pages are held while all are forgotten");
        self.index.clear();
        self.idle.clear();
        self.pages.fill(Page::default());
        self.free = (0..self.pages.len() as u32).rev().collect();
    }

    /// The page after `before` with the longest common beginning with `part`, and its length.
    fn find(&self, before: Option<u32>, part: &[u32]) -> Option<(u32, usize)> {
        let content = (before, part.to_vec());
        let below = self.index.range(..&content).next_back();
        let above = self.index.range(&content..).next();
        [above, below]
            .into_iter()
            .flatten()
            .filter(|((predecessor, _), _)| *predecessor == before)
            .map(|((_, tokens), &page)| (page, common_len(tokens, part)))
            .filter(|&(_, common)| common > 0)
            .max_by_key(|&(_, common)| common)
    }

    /// A copy of a page, if there is room for one beside it.
    fn copy(&mut self, page: u32) -> Option<u32> {
        self.hold(page);
        let copy = self.take();
        if let Some(copy) = copy {
            self.kv.copy_page(page, copy);
        }
        self.let_go(page);
        copy
    }

    /// Makes page k of a sequence findable by its tokens up to position `end`, unless an equal one is already; says which
    /// page is found.
    fn record(&mut self, held: &[u32], tokens: &[u32], k: usize, end: usize) -> u32 {
        let before = k.checked_sub(1).map(|k| held[k]);
        let content = (before, tokens[k * PAGE_POSITIONS..end].to_vec());
        self.forget(held[k]);
        if let Some(&equal) = self.index.get(&content) {
            return equal;
        }
        self.index.insert(content.clone(), held[k]);
        self.page(held[k]).content = Some(content);
        held[k]
    }

    fn forget(&mut self, page: u32) {
        if let Some(content) = self.page(page).content.take() {
            self.index.remove(&content);
        }
    }

    fn hold(&mut self, page: u32) {
        if self.page(page).holders == 0 {
            let key = self.page(page).let_go;
            self.idle.remove(&key);
        }
        self.page(page).holders += 1;
    }

    fn let_go(&mut self, page: u32) {
        self.let_go += 1;
        let now = self.let_go;
        let entry = self.page(page);
        entry.holders -= 1;
        entry.let_go = now;
        match (entry.holders, &entry.content) {
            (0, Some(_)) => {
                self.idle.insert(now, page);
            }
            (0, None) => self.free.push(page),
            _ => {}
        }
    }

    fn page(&mut self, page: u32) -> &mut Page {
        &mut self.pages[page as usize]
    }
}

/// Length of the longest common beginning.
pub(crate) fn common_len(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
