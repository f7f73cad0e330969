//! Whether guessing pays for a sequence: an account of what guesses have cost it and saved it.

/// In units of what a token costs without guesses. Every token brings a small income, a guessed one costs its price, and one
/// that was right brings the token that it saved. Guesses are made as far as the account reaches: where they pay they pay
/// for longer ones, and where they don't they end, but for one now and then from the income, which finds out when they pay
/// again. So what guesses cost beyond what they save is at most the beginning and the income, whatever the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    credit: f64,
    /// Tokens to guess at a time.
    length: usize,
}

/// What a sequence begins with: enough for two or three guesses.
const BEGINNING: f64 = 0.25;
/// What each token brings.
const INCOME: f64 = 0.01;
/// Most that is put by, so that what was saved long ago is not spent in vain.
const MOST: f64 = 2.0;
/// Most tokens to guess at a time.
const LONGEST: usize = 16;

impl Default for Account {
    fn default() -> Account {
        Account { credit: BEGINNING, length: 4 }
    }
}

impl Account {
    /// How many tokens may be guessed now, at this price each.
    pub fn reaches(&self, price: f64) -> usize {
        // A quotient that is not a number gives none.
        self.length.min((self.credit / price) as usize)
    }

    /// Takes note of a step's guesses, how many of them were right, and what they cost.
    pub fn settle(&mut self, drafted: usize, accepted: usize, cost: f64) {
        let tokens = 1.0 + accepted as f64;
        self.credit = (self.credit + INCOME * tokens + accepted as f64 - cost).min(MOST);
        if drafted > 0 {
            self.length = if accepted == drafted { LONGEST.min(2 * self.length) } else { accepted + 1 };
        }
    }

    /// Ends guessing for good.
    pub fn close(&mut self) {
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `steps`, each guess being right as `right` says of its position; tokens gained, and the price paid.
    fn run(account: &mut Account, steps: usize, price: f64, mut right: impl FnMut(usize) -> bool) -> (usize, f64) {
        let (mut tokens, mut paid) = (0, 0.0);
        for _ in 0..steps {
            let drafted = account.reaches(price);
            let accepted = (0..drafted).take_while(|i| right(tokens + i)).count();
            account.settle(drafted, accepted, price * drafted as f64);
            tokens += 1 + accepted;
            paid += price * drafted as f64;
        }
        (tokens, paid)
    }

    #[test]
    fn what_never_pays_costs_a_hundredth_and_the_beginning() {
        for price in [0.01, 0.09, 0.3, 0.9] {
            let (tokens, paid) = run(&mut Account::default(), 1000, price, |_| false);
            assert_eq!(tokens, 1000);
            assert!(paid <= BEGINNING + INCOME * 1000.0, "{paid} at {price}");
            assert!(paid >= INCOME * 1000.0 - price, "it keeps trying: {paid} at {price}");
        }
    }

    #[test]
    fn what_pays_pays_for_more_and_comes_back() {
        let mut account = Account::default();
        run(&mut account, 300, 0.09, |_| false);
        let (tokens, paid) = run(&mut account, 100, 0.09, |_| true);
        assert!(tokens > 1300 && paid < 160.0, "{tokens} tokens for {paid}");
        // Then it stops again at once.
        let (_, paid) = run(&mut account, 1000, 0.09, |_| false);
        assert!(paid <= MOST + INCOME * 1000.0, "{paid}");
    }

    #[test]
    fn half_right_pays_where_guesses_are_cheap_and_not_where_they_are_dear() {
        let mut coin = 1_u32;
        let mut flip = |_| {
            coin = coin.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            coin >> 31 == 0
        };
        let gain = |(tokens, paid): (usize, f64), steps: f64| tokens as f64 / (steps + paid);
        let cheap = gain(run(&mut Account::default(), 2000, 0.09, &mut flip), 2000.0);
        assert!(cheap > 1.4, "{cheap} times as fast");
        let dear = gain(run(&mut Account::default(), 2000, 0.9, &mut flip), 2000.0);
        assert!(dear > 0.985, "{dear} times as fast");
    }

    #[test]
    fn a_closed_account_stays_closed() {
        let mut account = Account::default();
        account.close();
        account.settle(0, 0, 0.0);
        assert_eq!((account.reaches(0.1), account.reaches(0.0)), (0, 0));
    }
}
